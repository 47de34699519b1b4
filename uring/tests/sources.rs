//! Doorbells, signals and files on a real ring; and the ring's own bounds.

mod support;

use spooky_uring::host::{Signal, block_signals};
use spooky_uring::mailbox::{self, SendError};
use spooky_uring::*;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use support::*;

#[test]
fn a_plain_thread_wakes_a_ring() {
    each_ring(&small(), |host| {
        let (sender, receiver) = mailbox::channel(1000).unwrap();
        host.ring.watch(receiver.doorbell(), Token(4));
        let threads: Vec<_> = (0..2_u32)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for number in 0..5000_u32 {
                        let mut message = (thread, number);
                        while let Err(SendError::Full(back)) = sender.send(message) {
                            message = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0, 0];
        host.until(|_, event| {
            assert!(matches!(event, Event::Doorbell { token: Token(4) }));
            while let Some((thread, number)) = receiver.receive() {
                assert_eq!(next[thread as usize], number, "in order, none lost");
                next[thread as usize] += 1;
            }
            (next == [5000, 5000]).then_some(())
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn two_rings_talk_through_doorbells() {
    for features in feature_sets() {
        let (there, inbox) = mailbox::channel::<u32>(4).unwrap();
        let (back, outbox) = mailbox::channel::<u32>(4).unwrap();
        let other = features.clone();
        let thread = std::thread::spawn(move || {
            let mut ring = Ring::new(&small(), &other).unwrap();
            ring.watch(inbox.doorbell(), Token(1));
            let mut events = Vec::new();
            loop {
                ring.wait(None, &mut events).unwrap();
                events.clear();
                while let Some(number) = inbox.receive() {
                    if number == u32::MAX {
                        return ring.stats().doorbells_rung;
                    }
                    back.send_by(&mut ring, number + 1).unwrap();
                }
            }
        });
        let mut ring = Ring::new(&small(), &features).unwrap();
        ring.watch(outbox.doorbell(), Token(2));
        let mut events = Vec::new();
        for number in 0..500 {
            there.send_by(&mut ring, number).unwrap();
            let answer = loop {
                ring.wait(None, &mut events).unwrap();
                events.clear();
                if let Some(answer) = outbox.receive() {
                    break answer;
                }
            };
            assert_eq!(answer, number + 1);
        }
        there.send_by(&mut ring, u32::MAX).unwrap();
        ring.wait(Some(ring.now()), &mut events).unwrap();
        // Fewer where an answer was seen before its bell was heard.
        assert!((1..=500).contains(&thread.join().unwrap()));
    }
}

#[test]
fn a_full_mailbox_refuses_a_ring_thread_too() {
    each_ring(&small(), |host| {
        let (sender, receiver) = mailbox::channel(1).unwrap();
        sender.send_by(&mut host.ring, 1).unwrap();
        assert_eq!(sender.send_by(&mut host.ring, 2), Err(SendError::Full(2)));
        host.ring.watch(receiver.doorbell(), Token(1));
        host.until(|_, event| matches!(event, Event::Doorbell { .. }).then_some(()));
        assert_eq!((receiver.receive(), receiver.receive()), (Some(1), None));
        sender.send_by(&mut host.ring, 3).unwrap();
        host.until(|_, event| matches!(event, Event::Doorbell { .. }).then_some(()));
        assert_eq!(receiver.receive(), Some(3));
    });
}

/// The write must be carried out while it is submitted: a ring thread may not turn again for a while.
#[test]
fn a_bell_has_rung_when_the_turn_is_over() {
    each_ring(&small(), |host| {
        let (sender, receiver) = mailbox::channel(4).unwrap();
        for _ in 0..3 {
            sender.send_by(&mut host.ring, ()).unwrap();
        }
        host.poll();
        let mut count = [0; 8];
        let bell = receiver.doorbell();
        assert_eq!(nix::unistd::read(bell, &mut count), Ok(8));
        assert_eq!(u64::from_ne_bytes(count), 1, "coalesced");
    });
}

#[test]
fn signals_arrive_as_events() {
    // A signal of its own, blocked in this thread only: the kernel delivers it here.
    block_signals(&[Signal::SIGUSR2]).unwrap();
    each_ring(&small(), |host| {
        host.ring.read_signals(&[Signal::SIGUSR2]).unwrap();
        assert!(host.ring.read_signals(&[Signal::SIGUSR1]).is_err());
        for _ in 0..3 {
            // SAFETY: raises a signal that this thread blocks.
            unsafe { libc::raise(libc::SIGUSR2) };
            let signal = host.until(|_, event| match event {
                Event::Signal { signal } => Some(signal),
                _ => None,
            });
            assert_eq!(signal, libc::SIGUSR2);
        }
    });
}

#[test]
fn files_are_written_in_order() {
    each_ring(&small(), |host| {
        let path = std::env::temp_dir().join(format!("uring-file-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let file = host.ring.add_file(file.into(), Token(8));
        let mut expected = Vec::new();
        for line in 0..200_u32 {
            let line = format!("line {line}\n");
            expected.extend_from_slice(line.as_bytes());
            host.ring.write(file, Chunk::from_vec(line.into_bytes()));
        }
        host.ring.close_file(file);
        host.ring.write(file, Chunk::copy_from(b"too late"));
        let mut written = 0;
        host.until(|_, event| {
            if let Event::Written { token, result } = event {
                assert_eq!(token, Token(8));
                written += result.unwrap();
            }
            (written == expected.len()).then_some(())
        });
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        std::fs::remove_file(&path).unwrap();
        let again = host.ring.add_file(std::fs::File::open("/dev/null").unwrap().into(), Token(9));
        assert_eq!(again.slot, file.slot);
        assert_ne!(again.generation, file.generation);
        host.ring.write(again, Chunk::copy_from(b"read-only"));
        let result = host.until(|_, event| match event {
            Event::Written { result, .. } => Some(result),
            _ => None,
        });
        assert_eq!(result, Err(libc::EBADF));
    });
}

#[test]
fn a_pipe_takes_more_than_it_holds() {
    each_ring(&small(), |host| {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = host.ring.add_file(OwnedFd::from(writer), Token(8));
        let total = 1 << 20;
        host.ring.write(file, Chunk::from_vec(pattern(0, total)));
        host.ring.close_file(file);
        let thread = std::thread::spawn(move || {
            let (mut reader, mut bytes) = (reader, Vec::new());
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let result = host.until(|_, event| match event {
            Event::Written { result, .. } => Some(result),
            _ => None,
        });
        assert_eq!(result, Ok(total));
        assert_eq!(thread.join().unwrap(), pattern(0, total));
    });
}

#[test]
fn a_closed_pipe_is_an_error_not_a_signal() {
    each_ring(&small(), |host| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let file = host.ring.add_file(OwnedFd::from(writer), Token(8));
        for _ in 0..2 {
            host.ring.write(file, Chunk::copy_from(b"line"));
        }
        for _ in 0..2 {
            let result = host.until(|_, event| match event {
                Event::Written { result, .. } => Some(result),
                _ => None,
            });
            assert_eq!(result, Err(libc::EPIPE));
        }
    });
}

#[test]
fn the_deadline_ends_the_wait_and_not_before() {
    each_ring(&small(), |host| {
        for micros in [0, 100, 3000] {
            let deadline = Instant::now() + Duration::from_micros(micros);
            host.ring.wait(Some(deadline), &mut host.events).unwrap();
            assert!(host.events.is_empty());
            assert!(host.ring.now() >= deadline);
        }
    });
}

/// More operations in one turn than the submission queue holds, and more completions than the completion queue holds.
#[test]
fn a_turn_larger_than_the_queues_is_carried_out() {
    let config = RingConfig { entries: 8, ..small() };
    each_ring(&config, |host| {
        let pairs: Vec<_> = (0..100).map(|_| host.pair()).collect();
        for (near, far) in &pairs {
            host.ring.resume(*far);
            host.ring.send(*near, Chunk::copy_from(b"hello"));
        }
        let (mut received, mut sent) = (0, 0);
        host.until(|_, event| {
            match event {
                Event::Received { lease, .. } => {
                    assert_eq!(&*lease, b"hello");
                    received += 1;
                }
                Event::Sent { .. } => sent += 1,
                _ => {}
            }
            ((received, sent) == (100, 100)).then_some(())
        });
        assert!(host.ring.stats().submission_overflows > 0);
        for (near, far) in pairs {
            host.ring.close(near);
            host.ring.close(far);
        }
        while host.ring.pressure().free < host.ring.pressure().total {
            host.poll();
        }
    });
}

#[test]
fn one_system_call_per_turn() {
    each_ring(&small(), |host| {
        let (near, far) = host.pair();
        host.ring.resume(far);
        host.poll();
        let before = *host.ring.stats();
        for _ in 0..100 {
            host.ring.send(near, Chunk::copy_from(b"ping"));
            host.turn();
        }
        let after = *host.ring.stats();
        assert_eq!(after.turns - before.turns, 100);
        assert_eq!(after.enters - before.enters, 100);
    });
}

#[test]
fn counters_have_names() {
    each_ring(&small(), |host| {
        host.poll();
        let named: Vec<_> = host.ring.stats().named().collect();
        assert_eq!(named[0], ("turns", 1));
        assert!(named.len() > 20);
    });
}
