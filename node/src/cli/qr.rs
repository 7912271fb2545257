//! A link as a QR code of half blocks, two modules in one character.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code; [`None`] when the text is too long for one.
///
/// Links are written in capitals: Bech32 allows it, and the alphanumeric mode of QR codes needs
/// 5.5 bits for a character instead of 8. Light modules are the drawn ones: most terminals are
/// dark, and the quiet zone around the code makes it readable on light ones.
#[must_use]
pub fn draw(link: &str) -> Option<String> {
    // The lowest level of error correction: a screen is not a creased piece of paper, and the
    // smaller code fits into a window.
    let code = QrCode::with_error_correction_level(link.to_ascii_uppercase(), EcLevel::L).ok()?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_half_blocks_and_line_feeds() {
        let picture = draw("sremplink1qqqqqqqq").unwrap();
        assert!(picture.chars().all(|c| " \u{2580}\u{2584}\u{2588}\n".contains(c)));
        let widths: Vec<usize> = picture.lines().map(|line| line.chars().count()).collect();
        assert!(widths.len() > 14 && widths.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_link_of_the_greatest_size_that_fits() {
        assert!(draw(&"q".repeat(4096)).is_some());
        assert!(draw(&"q".repeat(5000)).is_none());
    }
}
