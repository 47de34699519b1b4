//! Backends by script: how each one behaves, and when.

use spooky_uring::simulation::Random;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Who would wait longer for its turn is refused.
pub const LINE: Duration = Duration::from_millis(500);

/// What a backend does with an attempt that comes now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    /// Answers, this many times slower than usual.
    Answers(f64),
    /// Nobody listens: the connection is refused.
    Refuses,
    /// Takes the request and says nothing.
    Hangs,
    /// Breaks this part of its connections before an answer.
    Breaks(f64),
}

/// What is wrong with a backend, between the story's `from` and `until`. Before and after that it is as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Twenty times slower.
    Slow,
    /// Refuses for one second of two.
    Flaps,
    /// Half of what it takes breaks.
    HalfDead,
    /// Refuses everything.
    Dead,
    /// Answers nothing.
    Stopped,
}

/// One backend: two at once, five milliseconds each or so, the others in line: 400 a second.
#[derive(Debug)]
pub struct Backend {
    pub trouble: Trouble,
    pub from: Duration,
    pub until: Duration,
    /// When each of its workers is free again.
    free: [Duration; 2],
}

/// How an attempt ends that was made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer, at this time.
    Answer(Duration),
    /// Without a connection, at this time.
    NoConnection(Duration),
    /// With a connection that broke, at this time.
    Broken(Duration),
    /// Never.
    Never,
}

impl Backend {
    pub fn new(trouble: Trouble, from: Duration, until: Duration) -> Self {
        Self { trouble, from, until, free: [Duration::ZERO; 2] }
    }

    pub fn mood(&self, now: Duration) -> Mood {
        if now < self.from || now >= self.until {
            return Mood::Answers(1.0);
        }
        match self.trouble {
            Trouble::None => Mood::Answers(1.0),
            Trouble::Slow => Mood::Answers(20.0),
            Trouble::Flaps if (now - self.from).as_secs().is_multiple_of(2) => Mood::Refuses,
            Trouble::Flaps => Mood::Answers(1.0),
            Trouble::HalfDead => Mood::Breaks(0.5),
            Trouble::Dead => Mood::Refuses,
            Trouble::Stopped => Mood::Hangs,
        }
    }

    /// Takes an attempt.
    pub fn take(&mut self, now: Duration, random: &mut Random) -> End {
        let slower = match self.mood(now) {
            Mood::Refuses => return End::NoConnection(now + MS / 5),
            Mood::Hangs => return End::Never,
            Mood::Breaks(part) if random.chance(part) => return End::Broken(now + MS),
            Mood::Breaks(_) => 1.0,
            Mood::Answers(slower) => slower,
        };
        let served = MS * 2 + random.up_to(MS * 6);
        let first = self.free.iter_mut().min().expect("two of them");
        if *first > now + LINE {
            return End::NoConnection(now + MS / 5);
        }
        *first = (*first).max(now) + served.mul_f64(slower);
        End::Answer(*first)
    }
}
