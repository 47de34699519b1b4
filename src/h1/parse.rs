//! Heads and trailer sections out of contiguous bytes: `httparse`, and what it lets pass that we do not.
//!
//! Refused here beyond the library's own strictness: lines that end with LF alone, empty lines before a status line,
//! more than one empty line before a request line (RFC 9112 §2.2 asks servers, and only servers, to bear one), statuses
//! below 100. What fields mean is not judged here but in [`crate::http::normalize`].

use super::input::Parsed;
use crate::limits;
use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Request, Response, Status};
use std::mem::MaybeUninit;

/// Why bytes are not a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// The grammar is violated; says where.
    Malformed(&'static str),
    /// More fields than allowed.
    TooManyFields,
}

/// The first line of a response. The reason phrase means nothing and goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    pub status: u16,
}

/// The first line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    pub method: &'a str,
    pub target: &'a str,
}

/// Parses a response head and hands its parts to `build`, borrowed from `bytes`.
pub(super) fn response<T, E: From<Bad>>(
    bytes: &[u8],
    fields_max: usize,
    build: impl FnOnce(StatusLine, &[Header<'_>]) -> Result<T, E>,
) -> Parsed<T, E> {
    if let Some(b'\r' | b'\n') = bytes.first() {
        return bad("empty line before the status line");
    }
    // Uninitialised: filling 128 entries for each head would cost more than parsing it.
    let mut entries = [const { MaybeUninit::uninit() }; limits::H1_FIELDS_CEILING];
    let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
    let mut response = Response::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut response, bytes, entries) {
        Ok(Status::Partial) => Parsed::Partial,
        Err(error) => refuse(error, bytes, |front| {
            let mut entries = [const { MaybeUninit::uninit() }; limits::H1_FIELDS_CEILING];
            let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
            parser.parse_response_with_uninit_headers(&mut Response::new(&mut []), front, entries)
        }),
        Ok(Status::Complete(used)) => {
            if !lines_end_with_crlf(&bytes[..used], response.headers) {
                return bad(BARE_LF);
            }
            let (Some(minor), Some(status)) = (response.version, response.code) else {
                return bad("status line");
            };
            if status < 100 {
                return bad("status below 100");
            }
            complete(used, build(StatusLine { minor, status }, response.headers))
        }
    }
}

/// Parses a request head and hands its parts to `build`, borrowed from `bytes`.
pub(super) fn request<T, E: From<Bad>>(
    bytes: &[u8],
    fields_max: usize,
    build: impl FnOnce(RequestLine<'_>, &[Header<'_>]) -> Result<T, E>,
) -> Parsed<T, E> {
    let line = match bytes {
        [b'\r'] => return Parsed::Partial,
        [b'\r', b'\n', rest @ ..] => rest,
        whole => whole,
    };
    if let Some(b'\r' | b'\n') = line.first() {
        return bad("empty lines before the request line");
    }
    let mut entries = [const { MaybeUninit::uninit() }; limits::H1_FIELDS_CEILING];
    let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(line, entries) {
        Ok(Status::Partial) => Parsed::Partial,
        Err(error) => refuse(error, line, |front| {
            let mut entries = [const { MaybeUninit::uninit() }; limits::H1_FIELDS_CEILING];
            let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
            Request::new(&mut []).parse_with_uninit_headers(front, entries)
        }),
        Ok(Status::Complete(used)) => {
            if !lines_end_with_crlf(&line[..used], request.headers) {
                return bad(BARE_LF);
            }
            let (Some(minor), Some(method), Some(target)) = (request.version, request.method, request.path) else {
                return bad("request line");
            };
            let first = RequestLine { minor, method, target };
            let used = bytes.len() - line.len() + used;
            complete(used, build(first, request.headers))
        }
    }
}

/// Parses a trailer section and hands its fields to `build`, borrowed from `bytes`.
pub(super) fn trailers<T, E: From<Bad>>(
    bytes: &[u8],
    fields_max: usize,
    build: impl FnOnce(&[Header<'_>]) -> Result<T, E>,
) -> Parsed<T, E> {
    // Nearly every chunked body ends without trailers.
    if bytes.starts_with(b"\r\n") {
        return complete(2, build(&[]));
    }
    let mut entries = [EMPTY_HEADER; limits::H1_FIELDS_CEILING];
    let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
    match httparse::parse_headers(bytes, entries) {
        Ok(Status::Partial) => Parsed::Partial,
        Ok(Status::Complete((used, fields))) => {
            if !lines_end_with_crlf(&bytes[..used], fields) {
                return bad(BARE_LF);
            }
            complete(used, build(fields))
        }
        Err(error) => refuse(error, bytes, |front| {
            let mut entries = [EMPTY_HEADER; limits::H1_FIELDS_CEILING];
            let entries = &mut entries[..fields_max.min(limits::H1_FIELDS_CEILING)];
            httparse::parse_headers(front, entries).map(|status| match status {
                Status::Complete((used, _)) => Status::Complete(used),
                Status::Partial => Status::Partial,
            })
        }),
    }
}

const BARE_LF: &str = "line ends with LF alone";

fn bad<T, E: From<Bad>>(detail: &'static str) -> Parsed<T, E> {
    Parsed::Bad(Bad::Malformed(detail).into())
}

fn complete<T, E>(used: usize, built: Result<T, E>) -> Parsed<T, E> {
    match built {
        Ok(value) => Parsed::Complete(used, value),
        Err(error) => Parsed::Bad(error),
    }
}

/// Whether CRLF ends every line of `section`. The library takes LF alone too; but it allows neither byte within a line,
/// so looking in front of each field and at the end sees every line end without another pass over the bytes.
fn lines_end_with_crlf(section: &[u8], fields: &[Header<'_>]) -> bool {
    let first = section.as_ptr() as usize;
    section.ends_with(b"\r\n\r\n")
        && fields.iter().all(|field| {
            let at = (field.name.as_ptr() as usize).wrapping_sub(first);
            // A trailer section begins with its first field.
            at == 0 || section.get(..at).is_some_and(|front| front.ends_with(b"\r\n"))
        })
}

/// Names what the library refused. Cold, so it can afford to be exact: with too many fields *and* a line that ends with
/// LF alone, the earlier of the two decides, as it would had the bytes come one by one.
#[cold]
fn refuse<T, E: From<Bad>>(
    error: Error,
    bytes: &[u8],
    again: impl Fn(&[u8]) -> httparse::Result<usize>,
) -> Parsed<T, E> {
    if error == Error::TooManyHeaders {
        let bare =
            bytes.iter().enumerate().position(|(at, &byte)| byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'));
        return match bare {
            Some(at) if again(&bytes[..=at]) != Err(Error::TooManyHeaders) => bad(BARE_LF),
            _ => Parsed::Bad(Bad::TooManyFields.into()),
        };
    }
    bad(match error {
        Error::HeaderName => "field name",
        Error::HeaderValue => "field value",
        Error::NewLine => "line end",
        Error::Status => "status line",
        Error::Token => "request line",
        Error::Version => "protocol version",
        Error::TooManyHeaders => "fields",
    })
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
