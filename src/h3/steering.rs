//! Owns the program with which the kernel chooses the worker of a datagram: by the connection ID, as far as one of ours
//! stands in it.
//!
//! | packet | socket |
//! |---|---|
//! | short header | the worker in the connection ID |
//! | Handshake (version 1) with an ID of our length | the same |
//! | Initial, 0-RTT, other versions, everything odd | the kernel's hash of the addresses |
//!
//! The program is classic BPF, so it needs no privilege. It reads nothing but the header, and whoever forges an ID reaches
//! some worker, which finds nothing or hands the datagram on: choosing wrongly costs time, never correctness. Layout and
//! mask are [`super::cid`]'s.

use super::cid::{BLOCK_LEN, CID_LEN, CidKeys};
use super::packet::VERSION_1;
use spooky_uring::Instruction;

/// Where a connection ID begins behind a short header's first byte.
const SHORT_ID_AT: u32 = 1;
/// And in a long header: first byte, version, length.
const LONG_ID_AT: u32 = 1 + 4 + 1;
/// Chooses no socket: the kernel's hash does.
const HASH: u32 = u32::MAX;

/// Words of the program's memory.
const MIXED: u32 = 0;
const ID_AT: u32 = 1;

/// The program for a group of `workers` sockets, in the order of the workers.
pub fn program(keys: &CidKeys, workers: u16) -> Vec<Instruction> {
    let steer = steer_by_id(keys, workers);
    let long = long_header(steer.len());
    let mut program = vec![
        Instruction::load_length(),
        // Four instructions on this page follow; the last of all leaves the choice to the hash.
        Instruction::if_at_least(SHORT_ID_AT + CID_LEN as u32, 0, distance(4 + long.len() + steer.len() - 1)),
        Instruction::load_byte(0),
        Instruction::if_any(0x80, 2, 0),
        Instruction::set_x(SHORT_ID_AT),
        Instruction::skip(long.len() as u32),
    ];
    program.extend(long);
    program.extend(steer);
    program
}

/// Goes on behind itself with X at the ID of a Handshake packet, or ends at the last of the `behind` instructions that
/// follow. Begins with the first byte in A.
fn long_header(behind: usize) -> [Instruction; 9] {
    // From instruction `at` to the last of all.
    let hash = |at: usize| distance(9 - at - 1 + behind - 1);
    [
        // Two bits tell the type (RFC 9000 §17.2).
        Instruction::and(0x30),
        Instruction::if_equal(0x20, 0, hash(1)),
        Instruction::load_word(1),
        Instruction::if_equal(VERSION_1, 0, hash(3)),
        Instruction::load_byte(5),
        Instruction::if_equal(CID_LEN as u32, 0, hash(5)),
        Instruction::load_length(),
        Instruction::if_at_least(LONG_ID_AT + CID_LEN as u32, 0, hash(7)),
        Instruction::set_x(LONG_ID_AT),
    ]
}

/// Chooses by the ID at X. Its last instruction leaves the choice to the hash.
fn steer_by_id(keys: &CidKeys, workers: u16) -> Vec<Instruction> {
    let mask = keys.mask;
    let mut steps = vec![Instruction::store_x(ID_AT), Instruction::load_word_behind_x(0), Instruction::xor(mask.start)];
    for (at, factor) in mask.factors.into_iter().enumerate() {
        if at > 0 {
            steps.extend([
                Instruction::load_x(ID_AT),
                Instruction::load_word_behind_x(4 * at as u32),
                Instruction::load_x(MIXED),
                Instruction::xor_x(),
            ]);
        }
        steps.extend([
            Instruction::multiply(factor),
            Instruction::store(MIXED),
            Instruction::shift_right(16),
            Instruction::load_x(MIXED),
            Instruction::xor_x(),
            Instruction::store(MIXED),
        ]);
    }
    steps.extend([
        Instruction::load_x(ID_AT),
        Instruction::load_half_behind_x(BLOCK_LEN as u32),
        Instruction::load_x(MIXED),
        Instruction::xor_x(),
        // The mask is the low half.
        Instruction::and(0xffff),
        Instruction::if_at_least(u32::from(workers), 1, 0),
        Instruction::choose_a(),
        Instruction::choose(HASH),
    ]);
    steps
}

/// A jump's distance.
fn distance(instructions: usize) -> u8 {
    // The program is one of a few dozen instructions, whatever the keys are; a test makes it.
    u8::try_from(instructions).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::cid::{Cid, CidCoder};
    use super::super::packet::{Invariant, LongType};
    use super::super::tests::support::Random;
    use super::*;

    const WORKERS: u16 = 5;

    fn keys() -> CidKeys {
        CidKeys::derive(b"a secret of the tests")
    }

    fn id(coder: &mut CidCoder, worker: u16, tag: u32) -> [u8; CID_LEN] {
        coder.encode(Cid { epoch: 9, worker, slot: tag % 7, tag, sequence: tag % 3 })
    }

    fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
        [&[first], &version.to_be_bytes()[..], &[id.len() as u8], id, &[0; 30]].concat()
    }

    /// What the kernel does with a program, for the instructions ours has.
    fn run(program: &[Instruction], datagram: &[u8]) -> u32 {
        let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0);
        let load = |from: u32, len: usize| {
            let bytes = datagram.get(from as usize..from as usize + len)?;
            Some(bytes.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)))
        };
        loop {
            let Instruction { code, jump_true, jump_false, constant } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
            let loaded = match code {
                0x80 => Some(datagram.len() as u32),
                0x30 => load(constant, 1),
                0x20 => load(constant, 4),
                0x40 => load(x + constant, 4),
                0x48 => load(x + constant, 2),
                0x60 => Some(memory[constant as usize]),
                0x01 => {
                    x = constant;
                    continue;
                }
                0x61 => {
                    x = memory[constant as usize];
                    continue;
                }
                0x02 => {
                    memory[constant as usize] = a;
                    continue;
                }
                0x03 => {
                    memory[constant as usize] = x;
                    continue;
                }
                0xac => Some(a ^ x),
                0xa4 => Some(a ^ constant),
                0x54 => Some(a & constant),
                0x24 => Some(a.wrapping_mul(constant)),
                0x74 => Some(a >> constant),
                0x05 => {
                    at += constant as usize;
                    continue;
                }
                0x15 => {
                    at += jump(a == constant);
                    continue;
                }
                0x35 => {
                    at += jump(a >= constant);
                    continue;
                }
                0x45 => {
                    at += jump(a & constant != 0);
                    continue;
                }
                0x16 => return a,
                0x06 => return constant,
                other => panic!("instruction {other:#x}"),
            };
            match loaded {
                Some(value) => a = value,
                // The kernel ends a program that reads behind the datagram, with the first socket as its choice.
                None => return 0,
            }
        }
    }

    #[test]
    fn ids_of_ours_choose_their_worker_and_everything_else_the_hash() {
        let (keys, mut coder) = (keys(), CidCoder::new(&keys()).unwrap());
        let program = program(&keys, WORKERS);
        assert!(program.len() < 80, "{}", program.len());
        for tag in 0..500 {
            let worker = tag as u16 % WORKERS;
            let id = id(&mut coder, worker, tag);
            let short = |first| [&[first], &id[..], &[0; 9]].concat();
            for first in [0x40, 0x7f, 0x00] {
                assert_eq!(run(&program, &short(first)), u32::from(worker));
            }
            assert_eq!(run(&program, &[&[0x40], &id[..]].concat()), u32::from(worker), "nothing behind the ID");
            assert_eq!(run(&program, &long(0xe3, 1, &id)), u32::from(worker));
            let handshake = long(0xe3, 1, &id);
            assert_eq!(run(&program, &handshake[..LONG_ID_AT as usize + CID_LEN]), u32::from(worker));
            for (packet, what) in [
                (long(0xc3, 1, &id), "Initial"),
                (long(0xd3, 1, &id), "0-RTT"),
                (long(0xf3, 1, &id), "Retry"),
                (long(0xe3, 2, &id), "another version"),
                (long(0xe3, 1, &id[1..]), "another length"),
                (long(0xe3, 1, &[&id[..], &[0]].concat()), "another length"),
                (short(0x40)[..CID_LEN].to_vec(), "short and cut"),
                (handshake[..LONG_ID_AT as usize + CID_LEN - 1].to_vec(), "Handshake and cut"),
                (Vec::new(), "nothing"),
            ] {
                assert_eq!(run(&program, &packet), HASH, "{what}");
            }
        }
        // A worker that this process has not.
        let id = id(&mut coder, WORKERS, 1);
        assert_eq!(run(&program, &[&[0x40], &id[..]].concat()), HASH);
        let most = super::program(&keys, u16::MAX);
        let id = super::tests::id(&mut coder, 4095, 1);
        assert_eq!(run(&most, &[&[0x40], &id[..]].concat()), 4095);
    }

    #[test]
    fn no_bytes_lead_the_program_astray() {
        let keys = keys();
        let program = program(&keys, WORKERS);
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
            if random.chance(50) && bytes.len() > 6 {
                bytes[0] |= 0xe0;
                bytes[1..6].copy_from_slice(&[0, 0, 0, 1, CID_LEN as u8]);
            }
            let chosen = run(&program, &bytes);
            assert!(chosen == HASH || chosen < u32::from(WORKERS));
            if chosen != HASH {
                // It steers what the endpoint would look up, and nothing else.
                match Invariant::parse(&bytes) {
                    Some(Invariant::Short { .. }) => {}
                    Some(Invariant::Long { first, version: 1, dcid, .. }) => {
                        assert_eq!((LongType::of(first), dcid.len()), (LongType::Handshake, CID_LEN));
                    }
                    // The ID is whole, what follows is not.
                    None => assert!(bytes[0] & 0x80 != 0),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
