//! Framing of a rendezvous connection, inside its TLS session, both ways.
//!
//! ```text
//! stream = "SREMP" major minor                       once, 7 bytes
//!          { u32le(len message) || message } ...     message at most 64 KiB
//! ```
//! Bytes in, messages out, in any split. What a message says is [`crate::wire`]'s concern; frames
//! of Noise sessions are shorter and have another form.

use crate::label::VERSION_HEADER;
use crate::limit::MAX_RENDEZVOUS_MESSAGE;

/// Bytes in front of a message.
const PREFIX: usize = 4;

/// Bytes of [`VERSION_HEADER`] that name the protocol; major and minor version follow.
const MAGIC: usize = 5;

/// Why a stream is not ours. Nothing after the error can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LongFrameError {
    /// The stream does not begin with `SREMP`.
    #[error("the peer does not speak SREMP")]
    NotSremp,
    /// Another major version; minor versions may differ.
    #[error("the peer speaks version {major}.{minor}, this side 1.0")]
    Version {
        /// The peer's major version.
        major: u8,
        /// The peer's minor version.
        minor: u8,
    },
    /// A message is announced, or to be sent, that is longer than allowed.
    #[error("a message of {length} bytes; at most {MAX_RENDEZVOUS_MESSAGE} are allowed")]
    TooLong {
        /// The length in question.
        length: usize,
    },
}

/// Puts the peer's bytes together to messages. Holds at most one incomplete message.
#[derive(Debug, Default)]
pub struct LongFrameReader {
    header_read: bool,
    /// The unit that is incomplete: the header, or a length and its message.
    partial: Vec<u8>,
    failed: Option<LongFrameError>,
}

impl LongFrameReader {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `bytes` until a message is whole or none are left.
    ///
    /// `None` means that all bytes are consumed and more are needed. To be called again as long
    /// as it gives messages.
    ///
    /// # Errors
    /// [`LongFrameError`], once and forever: the stream is out of step then.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, LongFrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read_on(bytes).inspect_err(|error| {
            self.failed = Some(*error);
            self.partial = Vec::new();
        })
    }

    fn read_on(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, LongFrameError> {
        if !self.header_read {
            let complete = self.take(bytes, VERSION_HEADER.len());
            check_header(&self.partial)?;
            if !complete {
                return Ok(None);
            }
            self.header_read = true;
            self.partial.clear();
        }
        if !self.take(bytes, PREFIX) {
            return Ok(None);
        }
        let length = announced(&self.partial);
        if length > MAX_RENDEZVOUS_MESSAGE {
            return Err(LongFrameError::TooLong { length });
        }
        if !self.take(bytes, PREFIX.saturating_add(length)) {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial);
        message.drain(..PREFIX);
        Ok(Some(message))
    }

    /// Moves bytes until the incomplete unit has `wanted` of them. Room is made for bytes that
    /// are there, not for what is announced.
    fn take(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.partial.len());
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        self.partial.extend_from_slice(now);
        *bytes = later;
        self.partial.len() >= wanted
    }

    /// Whether the peer's header has come.
    #[must_use]
    pub const fn header_seen(&self) -> bool {
        self.header_read
    }

    /// Whether the stream may end here: between two messages.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.header_read && self.partial.is_empty() && self.failed.is_none()
    }
}

/// One message with its length in front. The version header goes out once, before the first.
///
/// # Errors
/// [`LongFrameError::TooLong`].
pub fn encode_long_frame(message: &[u8]) -> Result<Vec<u8>, LongFrameError> {
    let length = message.len();
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_RENDEZVOUS_MESSAGE)
        .ok_or(LongFrameError::TooLong { length })?;
    let mut frame = Vec::with_capacity(length.saturating_add(PREFIX));
    frame.extend_from_slice(&prefix.to_le_bytes());
    frame.extend_from_slice(message);
    Ok(frame)
}

/// Judges as much of the header as is there, so that a wrong one is refused at its first byte.
fn check_header(start: &[u8]) -> Result<(), LongFrameError> {
    if start.iter().zip(VERSION_HEADER).take(MAGIC).any(|(got, wanted)| *got != wanted) {
        return Err(LongFrameError::NotSremp);
    }
    let [_, _, _, _, _, our_major, _] = VERSION_HEADER;
    match start {
        [_, _, _, _, _, major, minor] if *major != our_major => {
            Err(LongFrameError::Version { major: *major, minor: *minor })
        }
        _ => Ok(()),
    }
}

fn announced(partial: &[u8]) -> usize {
    let prefix = partial.first_chunk::<PREFIX>().copied().unwrap_or_default();
    usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = VERSION_HEADER.to_vec();
        for message in messages {
            bytes.extend(encode_long_frame(message).unwrap());
        }
        bytes
    }

    fn read_all(
        reader: &mut LongFrameReader,
        mut bytes: &[u8],
    ) -> Result<Vec<Vec<u8>>, LongFrameError> {
        let mut messages = Vec::new();
        while let Some(message) = reader.read(&mut bytes)? {
            messages.push(message);
        }
        assert!(bytes.is_empty());
        Ok(messages)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            cuts in proptest::collection::vec(1_usize..50, 1..60),
        ) {
            let bytes = stream(&messages);
            let mut reader = LongFrameReader::new();
            let mut got = Vec::new();
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                got.extend(read_all(&mut reader, now).unwrap());
                rest = later;
            }
            prop_assert_eq!(got, messages);
            prop_assert!(reader.at_boundary());
        }

        #[test]
        fn any_bytes_give_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut input = VERSION_HEADER.to_vec();
            input.extend(bytes);
            let _ = read_all(&mut LongFrameReader::new(), &input);
        }
    }

    #[test]
    fn a_foreign_protocol_is_refused_at_its_first_byte() {
        let mut reader = LongFrameReader::new();
        assert_eq!(reader.read(&mut &b"G"[..]), Err(LongFrameError::NotSremp));
        // And stays refused.
        assert_eq!(reader.read(&mut &VERSION_HEADER[..]), Err(LongFrameError::NotSremp));
    }

    #[test]
    fn other_major_versions_are_refused_other_minor_ones_are_not() {
        for (version, wanted) in [
            ([1, 0], Ok(None)),
            ([1, 255], Ok(None)),
            ([0, 9], Err(LongFrameError::Version { major: 0, minor: 9 })),
            ([2, 0], Err(LongFrameError::Version { major: 2, minor: 0 })),
            ([255, 255], Err(LongFrameError::Version { major: 255, minor: 255 })),
        ] {
            let mut header = b"SREMP".to_vec();
            header.extend(version);
            assert_eq!(LongFrameReader::new().read(&mut header.as_slice()), wanted);
        }
    }

    #[test]
    fn the_bound_holds_on_both_sides_and_before_the_message_comes() {
        assert!(encode_long_frame(&vec![0; MAX_RENDEZVOUS_MESSAGE + 1]).is_err());
        let longest = vec![7; MAX_RENDEZVOUS_MESSAGE];
        let bytes = stream(std::slice::from_ref(&longest));
        assert_eq!(read_all(&mut LongFrameReader::new(), &bytes).unwrap(), [longest]);
        for length in [u32::try_from(MAX_RENDEZVOUS_MESSAGE).unwrap() + 1, u32::MAX] {
            let mut bytes = VERSION_HEADER.to_vec();
            bytes.extend(length.to_le_bytes());
            assert_eq!(
                read_all(&mut LongFrameReader::new(), &bytes),
                Err(LongFrameError::TooLong { length: usize::try_from(length).unwrap() })
            );
        }
    }

    #[test]
    fn the_end_of_a_stream_is_clean_only_between_messages() {
        let mut reader = LongFrameReader::new();
        assert!(!reader.at_boundary());
        let bytes = stream(&[vec![1, 2, 3]]);
        for (i, byte) in bytes.iter().enumerate() {
            let at_boundary = reader.at_boundary();
            assert_eq!(at_boundary, i == VERSION_HEADER.len());
            reader.read(&mut std::slice::from_ref(byte)).unwrap();
        }
        assert!(reader.at_boundary());
    }
}
