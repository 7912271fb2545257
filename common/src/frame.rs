//! Frames of a Noise connection: u16 little-endian length, then one Noise message (specification
//! section 10.1). Knows nothing of what is inside.

use std::borrow::Cow;

use crate::limit::MAX_NOISE_MESSAGE;

/// Bytes of the length in front of each frame.
pub const FRAME_HEADER: usize = 2;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// No Noise message is empty.
    #[error("a frame of length zero")]
    Empty,
    /// Announced longer than anything that is legal at this point of the connection.
    #[error("a frame of {announced} bytes where at most {max} are legal")]
    TooLong {
        /// What the peer announced, or we were about to send.
        announced: usize,
        /// What is legal here.
        max: usize,
    },
}

/// Cuts a stream of bytes into frames. Holds at most one incomplete frame, and nothing between
/// frames; what it holds has arrived, announced bytes are not allocated in advance.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// The beginning of a frame, its length included.
    partial: Vec<u8>,
}

impl FrameDecoder {
    /// Takes the next frame off the front of `input`, with what was kept from before. `None` when
    /// the frame is not whole yet: then all of `input` was taken. A frame that lies whole in
    /// `input` is borrowed from there.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the length is legible and illegal: zero, or above `max`. The
    /// stream cannot be read any further after that.
    pub fn pull<'a>(
        &mut self,
        input: &mut &'a [u8],
        max: usize,
    ) -> Result<Option<Cow<'a, [u8]>>, FrameError> {
        if self.partial.is_empty()
            && let Some(frame) = split_whole(input, max)?
        {
            return Ok(Some(Cow::Borrowed(frame)));
        }
        loop {
            let missing = self.missing(max)?;
            if missing == 0 {
                let message = self.partial.split_off(FRAME_HEADER);
                self.partial = Vec::new();
                return Ok(Some(Cow::Owned(message)));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// The stream stands inside a frame.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes until the length is legible or, after that, until the frame is whole.
    fn missing(&self, max: usize) -> Result<usize, FrameError> {
        let Some((length, body)) = self.partial.split_first_chunk() else {
            return Ok(FRAME_HEADER.saturating_sub(self.partial.len()));
        };
        Ok(checked_length(*length, max)?.saturating_sub(body.len()))
    }
}

fn split_whole<'a>(input: &mut &'a [u8], max: usize) -> Result<Option<&'a [u8]>, FrameError> {
    let Some((length, rest)) = input.split_first_chunk() else { return Ok(None) };
    let Some((frame, rest)) = rest.split_at_checked(checked_length(*length, max)?) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(frame))
}

fn checked_length(length: [u8; FRAME_HEADER], max: usize) -> Result<usize, FrameError> {
    match usize::from(u16::from_le_bytes(length)) {
        0 => Err(FrameError::Empty),
        announced if announced > max => Err(FrameError::TooLong { announced, max }),
        announced => Ok(announced),
    }
}

/// What stands in front of a message of `length` bytes.
///
/// # Errors
/// [`FrameError`] when no frame can have this length.
pub fn frame_header(length: usize) -> Result<[u8; FRAME_HEADER], FrameError> {
    match u16::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) => Ok(length.to_le_bytes()),
        Err(_) => Err(FrameError::TooLong { announced: length, max: MAX_NOISE_MESSAGE }),
    }
}

/// Appends `message` as a frame to `out`.
///
/// # Errors
/// As [`frame_header`]; nothing was appended then.
pub fn append_frame(out: &mut Vec<u8>, message: &[u8]) -> Result<(), FrameError> {
    out.extend_from_slice(&frame_header(message.len())?);
    out.extend_from_slice(message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pull_all(decoder: &mut FrameDecoder, mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.pull(&mut input, MAX_NOISE_MESSAGE).unwrap() {
            frames.push(frame.into_owned());
        }
        assert!(input.is_empty());
        frames
    }

    #[test]
    fn n14_zero_and_too_long_are_refused_at_the_length() {
        assert_eq!(FrameDecoder::default().pull(&mut &[0, 0][..], 9), Err(FrameError::Empty));
        let too_long = Err(FrameError::TooLong { announced: 10, max: 9 });
        assert_eq!(FrameDecoder::default().pull(&mut &[10, 0][..], 9), too_long);
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.pull(&mut &[10][..], 9), Ok(None));
        assert_eq!(decoder.pull(&mut &[0][..], 9), too_long);
        assert_eq!(frame_header(0), Err(FrameError::Empty));
        assert!(frame_header(MAX_NOISE_MESSAGE).is_ok());
        assert!(frame_header(MAX_NOISE_MESSAGE + 1).is_err());
    }

    #[test]
    fn nothing_is_held_between_frames_and_nothing_is_allocated_ahead() {
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.pull(&mut &[0xff, 0xff, 1][..], MAX_NOISE_MESSAGE), Ok(None));
        assert!(decoder.is_partial() && decoder.partial.capacity() < 64);
        let mut decoder = FrameDecoder::default();
        assert_eq!(pull_all(&mut decoder, &[1]), Vec::<Vec<u8>>::new());
        assert_eq!(pull_all(&mut decoder, &[0, 7]), [[7]]);
        assert!(!decoder.is_partial() && decoder.partial.capacity() == 0);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in prop::collection::vec(1_usize..80, 1..200),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                append_frame(&mut stream, frame).unwrap();
            }
            let (mut decoder, mut seen, mut rest) = (FrameDecoder::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                seen.extend(pull_all(&mut decoder, piece));
                rest = later;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!decoder.is_partial());
        }
    }
}
