//! Sealed frames after the handshake. The first frame that does not open ends the session; frames
//! are counted, and their number is bounded far below the cipher's.

use std::fmt;

use snow::TransportState;

use super::HandshakeError;
use crate::limit::{MAX_FRAMES_PER_SESSION, MAX_NOISE_MESSAGE, NOISE_TAG};

/// Two keys, one for each direction, and the number of frames under each.
pub struct Session {
    transport: Box<TransportState>,
    max_frames: u64,
    broken: bool,
}

/// Why a frame was not sealed or opened. The session is over in every case.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    /// Forged, replayed, reordered, or one before it is missing.
    #[error("a frame does not decrypt")]
    Decrypt,
    /// The bound on frames under one key is reached.
    #[error("the session's keys are used up")]
    Exhausted,
    /// A frame before this one did not open.
    #[error("the session is broken")]
    Broken,
    /// Longer than a Noise message can be.
    #[error("too long for a frame")]
    TooLong,
}

impl Session {
    pub(super) fn new(noise: snow::HandshakeState) -> Result<Self, HandshakeError> {
        let transport = noise.into_transport_mode().map_err(HandshakeError::Noise)?;
        Ok(Self {
            transport: Box::new(transport),
            max_frames: MAX_FRAMES_PER_SESSION,
            broken: false,
        })
    }

    /// Appends the sealed form of `plaintext` to `out`: [`NOISE_TAG`] bytes longer.
    ///
    /// # Errors
    /// [`SessionError`]; nothing was appended then.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
        let sealed = plaintext.len().saturating_add(NOISE_TAG);
        if self.broken {
            return Err(SessionError::Broken);
        }
        if sealed > MAX_NOISE_MESSAGE {
            return Err(SessionError::TooLong);
        }
        if self.transport.sending_nonce() >= self.max_frames {
            self.broken = true;
            return Err(SessionError::Exhausted);
        }
        let start = out.len();
        out.resize(start.saturating_add(sealed), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        if self.transport.write_message(plaintext, room) == Ok(sealed) {
            return Ok(());
        }
        out.truncate(start);
        self.broken = true;
        Err(SessionError::Broken)
    }

    /// The plaintext of `message`.
    ///
    /// # Errors
    /// [`SessionError`]; from then on nothing is sealed or opened any more. A frame that does not
    /// open does not count: the nonce stays where it was.
    pub fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, SessionError> {
        if self.broken {
            return Err(SessionError::Broken);
        }
        if self.transport.receiving_nonce() >= self.max_frames {
            self.broken = true;
            return Err(SessionError::Exhausted);
        }
        // As long as the message, tag included: then the cipher works in place.
        let mut plaintext = vec![0; message.len()];
        if let Ok(length) = self.transport.read_message(message, &mut plaintext) {
            plaintext.truncate(length);
            return Ok(plaintext);
        }
        self.broken = true;
        Err(SessionError::Decrypt)
    }

    /// So close to the bound that the session should end while an orderly end can still be sealed.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        // Room for all that may still be queued, and the farewell.
        const MARGIN: u64 = 4096;
        let used = self.transport.sending_nonce().max(self.transport.receiving_nonce());
        used >= self.max_frames.saturating_sub(MARGIN.min(self.max_frames / 8))
    }

    /// Lowers the bound on frames, so that a test reaches it.
    #[cfg(test)]
    pub(crate) const fn limit_frames(&mut self, max_frames: u64) {
        self.max_frames = max_frames;
    }

    /// Frames opened so far.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.transport.receiving_nonce()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("broken", &self.broken).finish_non_exhaustive()
    }
}
