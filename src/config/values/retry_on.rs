//! After what another attempt is made, as it is written.

use super::refuse_word;
use crate::config::schema::{Key, Reader, Shape, Value};
use crate::config::tree::{Node, Value as TreeValue};
use crate::resilience::{Condition, Conditions};

impl Value for Condition {
    const SHAPE: Shape = Shape::Text(
        "\"connect-failure\", \"refused-stream\", \"reset\", \"timeout\", \"gateway-error\", \"5xx\", or a status such as \"503\"",
    );

    fn read(node: &Node, key: &Key, reader: &mut Reader<'_>) -> Option<Self> {
        let TreeValue::Text(text) = &node.value else {
            return reader.refuse_type(node, key, "a string", "write statuses as \"503\"");
        };
        if let Some((_, condition)) = Self::WORDS.iter().find(|(word, _)| word == text) {
            return Some(*condition);
        }
        match text.parse() {
            Ok(status) if Conditions::can_have(status) => Some(Self::Status(status)),
            Ok(_) => reader.refuse(
                node,
                format!("`{}` does not know this status", key.name()),
                "429, or one from 500 to 599: other answers are as final as they are",
            ),
            Err(_) => refuse_word(node, key, reader, &Self::WORDS.map(|(word, _)| word), &[]),
        }
    }
}
