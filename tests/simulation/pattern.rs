//! Bodies whose every byte is known by its place, so that the first wrong byte is found where it stands.

use spooky_uring::simulation::Random;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A prime: bytes that moved by any buffer's size differ from those that belong there.
const PERIOD: usize = 65_521;

thread_local! {
    static BLOCKS: RefCell<HashMap<u64, Rc<Vec<u8>>>> = RefCell::new(HashMap::new());
}

/// An endless body that belongs to a number.
#[derive(Clone)]
pub struct Pattern {
    block: Rc<Vec<u8>>,
}

impl Pattern {
    /// The body of this number.
    pub fn of(number: u64) -> Self {
        let block = BLOCKS.with_borrow_mut(|blocks| {
            let block = blocks.entry(number).or_insert_with(|| {
                let mut bytes = vec![0; PERIOD];
                Random::new(number ^ 0x5eed).fill(&mut bytes);
                Rc::new(bytes)
            });
            Rc::clone(block)
        });
        Self { block }
    }

    /// `len` bytes from `at` on.
    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        let mut from = (at % PERIOD as u64) as usize;
        while out.len() < len {
            let part = (PERIOD - from).min(len - out.len());
            out.extend_from_slice(&self.block[from..from + part]);
            from = 0;
        }
        out
    }

    /// Whether `bytes` are those from `at` on.
    pub fn matches(&self, at: u64, mut bytes: &[u8]) -> bool {
        let mut from = (at % PERIOD as u64) as usize;
        while !bytes.is_empty() {
            let part = (PERIOD - from).min(bytes.len());
            if bytes[..part] != self.block[from..from + part] {
                return false;
            }
            bytes = &bytes[part..];
            from = 0;
        }
        true
    }
}

/// Changes the byte at `wrong_at` of a body, if it is one of these, which begin at `at`.
pub fn spoil(bytes: &mut [u8], at: u64, wrong_at: Option<u64>) {
    if let Some(byte) = wrong_at.and_then(|wrong| bytes.get_mut(usize::try_from(wrong.checked_sub(at)?).ok()?)) {
        *byte ^= 1;
    }
}
