//! What comes on the port of a question about a backend's name: a server's answer, or anybody's.

use spooky::control::resolver::message::{Answer, Family, Question, Reading, Transport};
use spooky::limits;

/// The first byte says how the rest is meant: as a whole message, or as flags, a count and the records of an answer to the
/// question asked, so that a stranger's bytes get past the identifier that they cannot guess.
pub fn dns_answer(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let family = Family::BOTH[usize::from(how & 1)];
    let question = Question::new("app.internal.example", family, false, &mut || 0x5555_5555_5555_5555).expect("a name");
    let message = match (how & 2, data) {
        (0, whole) => whole.to_vec(),
        (_, [high, low, count, records @ ..]) => {
            let mut message = question.bytes().to_vec();
            message[2..4].copy_from_slice(&[high | 0x80, *low]);
            message[7] = *count;
            message.extend_from_slice(records);
            message
        }
        _ => return,
    };
    for over in [Transport::Datagram, Transport::Stream] {
        let reading = question.read(&message, over);
        assert_eq!(reading, question.read(&message, over), "the same bytes are the same answer");
        let Reading::Answer(answer) = reading else { continue };
        assert_eq!(message[..2], question.bytes()[..2], "an answer without our identifier");
        let Answer::Addresses { addresses, .. } = answer else { continue };
        let asked = &question.bytes()[12..];
        let repeated = &message[12..12 + asked.len()];
        assert!(repeated.eq_ignore_ascii_case(asked), "an answer to another question");
        assert!(over == Transport::Stream || repeated == asked, "over UDP without our capitals");
        assert!((1..=limits::ENDPOINTS).contains(&addresses.len()));
        for (at, ip) in addresses.iter().enumerate() {
            assert!(!addresses[..at].contains(ip), "{ip} twice");
            assert!(!ip.is_unspecified() && !ip.is_multicast(), "{ip} leads nowhere");
            // One of IPv6 may be an IPv4 address in its clothes.
            assert!(ip.is_ipv4() || family == Family::V6, "{ip} was not asked for");
        }
    }
}
