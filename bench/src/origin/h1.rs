//! Answers over HTTP/1.1, one after another.

use super::PIECE;
use super::action::Action;
use super::link::Link;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;

const HEAD_LINES_MAX: usize = 200;

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Sized(u64),
    Chunked,
}

struct Request {
    path: String,
    body: Body,
    expects_continue: bool,
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    Close,
    Reset,
}

/// Serves until the client goes, or an answer ends the connection.
pub fn serve(link: Link) -> io::Result<()> {
    let mut link = BufReader::new(link);
    while let Some(request) = read_head(&mut link)? {
        match answer(&request, &mut link)? {
            Then::Next => {}
            Then::Close => return Ok(()),
            Then::Reset => {
                // Lingering for no time at all: close sends a reset.
                let socket = &link.get_ref().socket;
                let mut linger = getsockopt(socket, sockopt::Linger)?;
                (linger.l_onoff, linger.l_linger) = (1, 0);
                setsockopt(socket, sockopt::Linger, &linger)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut request = Request { path, body: Body::Sized(0), expects_continue: false };
    for _ in 0..HEAD_LINES_MAX {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(request));
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => request.body = Body::Sized(value.trim().parse().unwrap_or(0)),
            "transfer-encoding" => request.body = Body::Chunked,
            "expect" => request.expects_continue = true,
            _ => {}
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn answer(request: &Request, link: &mut BufReader<Link>) -> io::Result<Then> {
    let action = Action::of(&request.path);
    match action {
        Action::Sink => loop {
            thread::park();
        },
        Action::Early => {
            link.get_mut().write_all(
                b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large",
            )?;
            // Not read, but not thrown in the client's face either: a reset could overtake the answer.
            io::copy(link, &mut io::sink())?;
            return Ok(Then::Close);
        }
        _ => {}
    }
    if request.expects_continue {
        link.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let uploaded = skip_body(link, request.body)?;
    let writer = link.get_mut();
    match action {
        Action::Bytes(bytes) => {
            announce(writer, bytes)?;
            send(writer, bytes)?;
        }
        Action::Short(bytes) | Action::Reset(bytes) => {
            announce(writer, bytes)?;
            send(writer, bytes / 2)?;
            return Ok(if matches!(action, Action::Short(_)) { Then::Close } else { Then::Reset });
        }
        Action::Chunked(bytes) => {
            begin_chunks(writer)?;
            let mut left = bytes;
            while left > 0 {
                let len = left.min(PIECE.len() as u64);
                write!(writer, "{len:x}\r\n")?;
                send(writer, len)?;
                writer.write_all(b"\r\n")?;
                left -= len;
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
        Action::Dribble(bytes, pause) => {
            begin_chunks(writer)?;
            for _ in 0..bytes {
                writer.write_all(b"1\r\nx\r\n")?;
                thread::sleep(pause);
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
        Action::Status(status) => {
            write!(writer, "HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n")?;
        }
        Action::Wait(pause) => {
            thread::sleep(pause);
            announce(writer, 0)?;
        }
        Action::Upload => {
            let text = uploaded.to_string();
            announce(writer, text.len() as u64)?;
            writer.write_all(text.as_bytes())?;
        }
        // Both returned above.
        Action::Sink | Action::Early => {}
    }
    Ok(Then::Next)
}

fn announce(writer: &mut Link, bytes: u64) -> io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")
}

fn begin_chunks(writer: &mut Link) -> io::Result<()> {
    writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
}

fn send(writer: &mut Link, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let len = left.min(PIECE.len() as u64);
        // At most the piece's length.
        writer.write_all(&PIECE[..len as usize])?;
        left -= len;
    }
    Ok(())
}

/// Reads a request body to its end; how long it was.
fn skip_body(reader: &mut impl BufRead, body: Body) -> io::Result<u64> {
    let skip = |reader: &mut dyn BufRead, bytes: u64| io::copy(&mut reader.take(bytes), &mut io::sink());
    if let Body::Sized(bytes) = body {
        return skip(reader, bytes);
    }
    let (mut total, mut line) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let digits = line.trim_end().split(';').next().unwrap_or("");
        let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        total += skip(reader, size)?;
        line.clear();
        reader.read_line(&mut line)?;
    }
    // Trailers, up to the empty line.
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            return Ok(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bodies_are_read_to_their_end_and_no_further() {
        let wire =
            b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n\
            POST /upload HTTP/1.1\r\ncontent-length: 4\r\n\r\nbodyrest";
        let mut reader = &wire[..];
        let request = read_head(&mut reader).unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.body), ("/upload", Body::Chunked));
        assert_eq!(skip_body(&mut reader, request.body).unwrap(), 8);
        let request = read_head(&mut reader).unwrap().unwrap();
        assert_eq!(request.body, Body::Sized(4));
        assert_eq!(skip_body(&mut reader, request.body).unwrap(), 4);
        assert_eq!(reader, b"rest");
    }
}
