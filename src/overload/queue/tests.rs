//! Whose turn it is, what a full queue says, and that nobody is forgotten, whatever the order of things.

use super::*;
use std::collections::VecDeque;

fn client(number: u32) -> AddressKey {
    AddressKey::V4(number)
}

fn place(upstream: usize, way: usize, number: u32) -> Place {
    Place { upstream, way, client: client(number) }
}

/// Serves everybody who waits for an upstream, in order.
fn serve_all(queue: &mut Queue, upstream: usize) -> Vec<u32> {
    let mut served = Vec::new();
    while let Some((ticket, item)) = queue.next(upstream) {
        queue.serve(ticket);
        queue.check_invariants();
        served.push(item);
    }
    served
}

#[test]
fn clients_take_turns_and_each_is_served_in_order() {
    let mut queue = Queue::new(1, 1);
    // One client sends six before the others send one and two.
    for (number, item) in [(1, 10), (1, 11), (1, 12), (1, 13), (1, 14), (1, 15), (2, 20), (3, 30), (3, 31)] {
        let _ = queue.join(place(0, 0, number), 100, 100, item).expect("room");
        queue.check_invariants();
    }
    assert!(!queue.is_empty());
    assert_eq!(serve_all(&mut queue, 0), [10, 20, 30, 11, 31, 12, 13, 14, 15]);
    assert!(queue.is_empty() && queue.index.is_empty() && queue.lanes.is_empty());
}

#[test]
fn a_new_client_comes_at_the_end_of_the_round() {
    let mut queue = Queue::new(1, 1);
    for (number, item) in [(1, 10), (1, 11), (2, 20), (2, 21)] {
        let _ = queue.join(place(0, 0, number), 100, 100, item).expect("room");
    }
    let (ticket, first) = queue.next(0).expect("somebody waits");
    queue.serve(ticket);
    let _ = queue.join(place(0, 0, 3), 100, 100, 30).expect("room");
    assert_eq!((first, serve_all(&mut queue, 0)), (10, vec![20, 11, 30, 21]));
}

#[test]
fn a_full_queue_and_a_full_share_say_so_and_change_nothing() {
    let mut queue = Queue::new(2, 3);
    for item in 0..2 {
        let _ = queue.join(place(0, 0, 1), 4, 2, item).expect("room");
    }
    assert_eq!(queue.join(place(0, 0, 1), 4, 2, 9), Err(Crowded::Client));
    // By another route to the same upstream it is the same client; at another upstream it has a share of its own.
    assert_eq!(queue.join(place(0, 1, 1), 4, 2, 9), Err(Crowded::Client));
    let _ = queue.join(place(1, 2, 1), 4, 2, 7).expect("another upstream");
    for number in 2..4 {
        let _ = queue.join(place(0, 0, number), 4, 2, number).expect("room");
    }
    assert_eq!(queue.join(place(0, 0, 5), 4, 2, 9), Err(Crowded::Route));
    // Routes have queues of their own.
    let _ = queue.join(place(0, 1, 5), 4, 2, 8).expect("room");
    queue.check_invariants();
    assert_eq!((queue.waiting(0), queue.waiting(1), queue.len()), (5, 1, 6));
    assert_eq!(queue.lanes.len(), 5, "who was refused left nothing behind");
}

#[test]
fn who_leaves_is_not_served_and_keeps_nobody_waiting() {
    let mut queue = Queue::new(1, 1);
    let tickets: Vec<_> = [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30)]
        .map(|(number, item)| queue.join(place(0, 0, number), 9, 9, item).expect("room"))
        .into();
    queue.leave(tickets[1]);
    // It was the turn of the first client; now it is still.
    queue.leave(tickets[0]);
    queue.check_invariants();
    assert_eq!(queue.next(0).map(|(_, item)| item), Some(12));
    queue.leave(tickets[2]);
    assert_eq!(serve_all(&mut queue, 0), [20, 30]);
}

#[test]
fn room_is_noted_once_and_only_where_somebody_waits() {
    let mut queue = Queue::new(3, 1);
    queue.note_room(0);
    assert!(!queue.has_rooms());
    let _ = queue.join(place(1, 0, 1), 9, 9, 10).expect("room");
    (0..5).for_each(|_| queue.note_room(1));
    queue.check_invariants();
    assert_eq!((queue.take_room(), queue.take_room()), (Some(1), None));
    queue.note_room(1);
    assert!(queue.has_rooms());
}

/// A simple one that is right by being plain: a list of clients with a list of requests each.
#[derive(Default)]
struct Plain(VecDeque<(u32, VecDeque<u32>)>);

impl Plain {
    fn join(&mut self, client: u32, item: u32) {
        match self.0.iter_mut().find(|(known, _)| *known == client) {
            Some((_, items)) => items.push_back(item),
            None => self.0.push_back((client, VecDeque::from([item]))),
        }
    }

    fn next(&self) -> Option<u32> {
        self.0.front().map(|(_, items)| items[0])
    }

    fn serve(&mut self) {
        let (client, mut items) = self.0.pop_front().expect("somebody waits");
        items.pop_front();
        if !items.is_empty() {
            self.0.push_back((client, items));
        }
    }

    fn leave(&mut self, item: u32) {
        self.0.iter_mut().for_each(|(_, items)| items.retain(|known| *known != item));
        self.0.retain(|(_, items)| !items.is_empty());
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Joins, services and departures in any order: the same as the plain one, and every ticket comes back.
#[test]
fn it_does_what_the_plain_one_does() {
    for seed in 1..300_u64 {
        let mut state = seed;
        let mut random = |below: u64| (xorshift(&mut state) >> 33) % below;
        let mut queue = Queue::new(1, 2);
        let mut plain = Plain::default();
        let mut tickets: Vec<(Ticket, u32)> = Vec::new();
        for item in 0..400_u32 {
            match random(5) {
                0..3 => {
                    let number = random(6) as u32;
                    let way = random(2) as usize;
                    match queue.join(place(0, way, number), 12, 5, item) {
                        Ok(ticket) => {
                            plain.join(number, item);
                            tickets.push((ticket, item));
                        }
                        Err(Crowded::Route) => assert_eq!(queue.ways[way], 12, "seed {seed}"),
                        Err(Crowded::Client) => {
                            let lane = queue.index[&(0, client(number))];
                            assert_eq!(queue.lanes[lane as usize].length, 5, "seed {seed}");
                        }
                    }
                }
                3 => {
                    let next = queue.next(0);
                    assert_eq!(next.map(|(_, item)| item), plain.next(), "seed {seed}, {item}");
                    if let Some((ticket, _)) = next {
                        queue.serve(ticket);
                        plain.serve();
                        tickets.retain(|(known, _)| *known != ticket);
                    }
                }
                _ if !tickets.is_empty() => {
                    let at = random(tickets.len() as u64) as usize;
                    let (ticket, gone) = tickets.swap_remove(at);
                    queue.leave(ticket);
                    plain.leave(gone);
                }
                _ => {}
            }
            queue.check_invariants();
            assert_eq!(queue.len(), tickets.len(), "seed {seed}");
        }
    }
}

/// Who sends a hundred at once and goes on doing so does not keep others waiting for longer than a round.
#[test]
fn a_greedy_client_costs_others_one_round() {
    for seed in 1..100_u64 {
        let mut state = seed;
        let mut queue = Queue::new(1, 1);
        for item in 0..100 {
            let _ = queue.join(place(0, 0, 0), 1_000, 100, item).expect("room");
        }
        for _ in 0..200 {
            let modest = 1 + (xorshift(&mut state) >> 33) as u32 % 8;
            let _ = queue.join(place(0, 0, modest), 1_000, 100, 1_000 + modest);
            let others = queue.lanes.len();
            let mut waited = 0;
            while queue.index.contains_key(&(0, client(modest))) {
                let (ticket, item) = queue.next(0).expect("somebody waits");
                queue.serve(ticket);
                if item < 1_000 {
                    let _ = queue.join(place(0, 0, 0), 1_000, 100, item).expect("its own place");
                }
                waited += 1;
            }
            assert!(waited <= others, "seed {seed}: {waited} were served before, {others} clients");
        }
    }
}

/// The check finds a ring that forgot somebody.
#[test]
#[should_panic(expected = "everybody who waits has a turn some time")]
fn sabotage_a_client_that_nobody_serves() {
    let mut queue = Queue::new(1, 1);
    let _ = queue.join(place(0, 0, 1), 9, 9, 1).expect("room");
    queue.rings[0] = Ring { turn: NONE, waiting: 0, noted: false };
    queue.check_invariants();
}

/// The check finds a place that was not given back.
#[test]
#[should_panic(expected = "a way knows who waits")]
fn sabotage_a_place_that_is_kept() {
    let mut queue = Queue::new(1, 1);
    let ticket = queue.join(place(0, 0, 1), 9, 9, 1).expect("room");
    queue.leave(ticket);
    queue.ways[0] += 1;
    queue.check_invariants();
}
