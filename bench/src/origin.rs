//! A small HTTP/1.1 origin that behaves as its paths say: sized, chunked and dribbling bodies, lies about the length,
//! resets, and a sink that never reads. For scenarios that a good origin cannot play.
//!
//! One thread for each connection: it is a tool for tens of connections, not for load (nginx does that).
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes with content-length |
//! | `/chunked/N` | N bytes in chunks of 16 KiB |
//! | `/dribble/N/MS` | N chunks of one byte, MS milliseconds apart |
//! | `/short/N` | announces N bytes, sends half of them, closes |
//! | `/reset/N` | announces N bytes, sends half of them, resets |
//! | `/status/S` | status S without body |
//! | `/wait/MS` | an empty 200 after MS milliseconds |
//! | `/upload` | reads the whole request body, then says how many bytes there were |
//! | `/sink` | reads nothing of the request body and says nothing |
//! | `/early` | 413 before the request body is read |

use crate::machine::Failure;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];
const HEAD_LINES_MAX: usize = 200;

/// Options of `origin`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where to listen (port 0: any; the address is printed)
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Serves until it is killed.
pub fn run(options: &Options) -> Result<(), Failure> {
    let listener =
        TcpListener::bind(options.listen).map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    println!("origin {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // The end of a connection, clean or not, is the end of its thread and nobody else's business.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

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

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = read_head(&mut reader)? {
        match answer(&request, &mut reader, &mut writer)? {
            Then::Next => {}
            Then::Close => return Ok(()),
            Then::Reset => {
                // Lingering for no time at all: close sends a reset.
                let mut linger = getsockopt(&writer, sockopt::Linger)?;
                (linger.l_onoff, linger.l_linger) = (1, 0);
                setsockopt(&writer, sockopt::Linger, &linger)?;
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

fn answer(request: &Request, reader: &mut impl BufRead, writer: &mut TcpStream) -> io::Result<Then> {
    let mut parts = request.path.trim_start_matches('/').split('/');
    let action = parts.next().unwrap_or("");
    let mut number = || {
        let text = parts.next().unwrap_or("");
        text.split('?').next().unwrap_or("").parse::<u64>().unwrap_or(0)
    };
    let (first, second) = (number(), number());
    match action {
        "sink" => loop {
            thread::park();
        },
        "early" => {
            writer.write_all(
                b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large",
            )?;
            // Not read, but not thrown in the client's face either: a reset could overtake the answer.
            io::copy(reader, &mut io::sink())?;
            return Ok(Then::Close);
        }
        _ => {}
    }
    if request.expects_continue {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let uploaded = skip_body(reader, request.body)?;
    match action {
        "bytes" => {
            announce(writer, first)?;
            send(writer, first)?;
        }
        "short" | "reset" => {
            announce(writer, first)?;
            send(writer, first / 2)?;
            return Ok(if action == "short" { Then::Close } else { Then::Reset });
        }
        "chunked" => {
            begin_chunks(writer)?;
            let mut left = first;
            while left > 0 {
                let len = left.min(PIECE.len() as u64);
                write!(writer, "{len:x}\r\n")?;
                send(writer, len)?;
                writer.write_all(b"\r\n")?;
                left -= len;
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
        "dribble" => {
            begin_chunks(writer)?;
            for _ in 0..first {
                writer.write_all(b"1\r\nx\r\n")?;
                thread::sleep(Duration::from_millis(second));
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
        "status" => {
            write!(writer, "HTTP/1.1 {first} Status\r\ncontent-length: 0\r\n\r\n")?;
        }
        "wait" => {
            thread::sleep(Duration::from_millis(first));
            announce(writer, 0)?;
        }
        "upload" => {
            let text = uploaded.to_string();
            announce(writer, text.len() as u64)?;
            writer.write_all(text.as_bytes())?;
        }
        _ => writer.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
    }
    Ok(Then::Next)
}

fn announce(writer: &mut TcpStream, bytes: u64) -> io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")
}

fn begin_chunks(writer: &mut TcpStream) -> io::Result<()> {
    writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
}

fn send(writer: &mut TcpStream, bytes: u64) -> io::Result<()> {
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
