//! Doorbells, signals and files of the simulated machine.

use super::agenda::Due;
use super::turn::Turn;
use crate::chunk::Chunk;
use crate::io::{Event, FileId, Token};
use crate::mailbox::Doorbell;
use std::collections::VecDeque;

struct File {
    token: Token,
    /// The first one is being written while `running`.
    queue: VecDeque<Chunk>,
    running: bool,
    closed: bool,
    content: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Sources {
    watches: Vec<(Doorbell, Token)>,
    signals: Vec<i32>,
    files: Vec<File>,
}

impl Sources {
    pub(super) fn watch(&mut self, doorbell: &Doorbell, token: Token) {
        self.watches.push((doorbell.clone(), token));
    }

    pub(super) fn raise(&mut self, signal: i32) {
        self.signals.push(signal);
    }

    /// Reports the bells that ring, and signals.
    pub(super) fn offer(&mut self, turn: &mut Turn<'_>) {
        for (doorbell, token) in &self.watches {
            if doorbell.answer() {
                turn.note("doorbell", token.0, 0);
                turn.events.push(Event::Doorbell { token: *token });
            }
        }
        turn.events.extend(self.signals.drain(..).map(|signal| Event::Signal { signal }));
    }

    pub(super) fn add_file(&mut self, token: Token) -> FileId {
        self.files.push(File { token, queue: VecDeque::new(), running: false, closed: false, content: Vec::new() });
        FileId { slot: self.files.len() as u32 - 1, generation: 0 }
    }

    /// What was written to a file so far.
    pub(super) fn content(&self, file: FileId) -> &[u8] {
        &self.files[file.slot as usize].content
    }

    pub(super) fn write(&mut self, id: FileId, chunk: Chunk, turn: &mut Turn<'_>) {
        let file = &mut self.files[id.slot as usize];
        assert!(!file.closed, "write to a closed file");
        if !chunk.is_empty() {
            file.queue.push_back(chunk);
            self.start(id.slot, turn);
        }
    }

    fn start(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let file = &mut self.files[slot as usize];
        if !file.running && !file.queue.is_empty() {
            file.running = true;
            turn.stats.file_writes += 1;
            let at = turn.completion();
            turn.agenda.add(at, Due::Written { file: slot });
        }
    }

    pub(super) fn written(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let file = &mut self.files[slot as usize];
        file.running = false;
        if let Some(chunk) = file.queue.pop_front() {
            file.content.extend_from_slice(&chunk);
            turn.events.push(Event::Written { token: file.token, result: Ok(chunk.len()) });
        }
        self.start(slot, turn);
    }

    pub(super) fn close(&mut self, id: FileId) {
        self.files[id.slot as usize].closed = true;
    }
}
