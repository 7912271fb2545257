//! The PROXY protocol, versions 1 and 2: a load balancer says, before anything else, whose
//! connection it passes on. It is believed only from networks that the operator trusts; there, it
//! must be said.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// Time for the header.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the longest header of version 1, by its definition.
const MAX_V1: usize = 107;

/// Bytes of version 2 up to its length.
const V2_FIXED: usize = 16;

/// Bytes of version 2 behind its length: addresses, and what else balancers add.
const MAX_V2: usize = 1_024;

/// Why nothing is believed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nothing came, or half of it.
    #[error("the proxy said nothing in time")]
    TimedOut,
    /// The stream failed.
    #[error("the proxy's connection failed")]
    Io(#[from] io::Error),
    /// Not the PROXY protocol, or not as it is defined.
    #[error("the proxy does not speak the PROXY protocol")]
    Malformed,
}

/// Whether a connection from `address` comes from a balancer that must say for whom.
#[must_use]
pub fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// Reads the header, and nothing behind it. None: the balancer speaks for itself, as in its
/// health checks.
///
/// # Errors
/// [`ProxyError`]: the connection should be closed.
pub async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyError> {
    let header =
        timeout(TIMEOUT, header_bytes(stream)).await.map_err(|_| ProxyError::TimedOut)??;
    match HeaderResult::parse(&header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
            v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (v2::Command::Proxy, v2::Addresses::IPv4(it)) => {
                Some((it.source_address, it.source_port).into())
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(it)) => {
                Some((it.source_address, it.source_port).into())
            }
            (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyError::Malformed),
    }
}

/// The bytes of a header: version 1 ends with its line, version 2 tells its length.
async fn header_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProxyError> {
    let mut header = vec![stream.read_u8().await?];
    if header == *b"P" {
        while !header.ends_with(b"\n") {
            if header.len() == MAX_V1 {
                return Err(ProxyError::Malformed);
            }
            header.push(stream.read_u8().await?);
        }
        return Ok(header);
    }
    header.resize(V2_FIXED, 0);
    stream.read_exact(header.get_mut(1..).unwrap_or_default()).await?;
    let length = match header.split_last_chunk() {
        Some((rest, length)) if rest.starts_with(v2::PROTOCOL_PREFIX) => {
            usize::from(u16::from_be_bytes(*length))
        }
        _ => return Err(ProxyError::Malformed),
    };
    if length > MAX_V2 {
        return Err(ProxyError::Malformed);
    }
    header.resize(V2_FIXED.saturating_add(length), 0);
    stream.read_exact(header.get_mut(V2_FIXED..).unwrap_or_default()).await?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2: the twelve bytes, command, family, length, the rest.
    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    async fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, usize) {
        let mut stream = bytes;
        let result = read_header(&mut stream).await;
        (result, stream.len())
    }

    #[tokio::test]
    async fn both_versions_say_who_it_is() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        let mut v6 = [0_u8; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 1;
        v6[32..34].copy_from_slice(&12_345_u16.to_be_bytes());
        let mut with_more = v4.to_vec();
        // A type-length-value that is not ours.
        with_more.extend([0xe0, 0, 2, b'x', b'y']);
        for (header, address) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\n".to_vec(), Some("192.0.2.1:12345")),
            (b"PROXY TCP6 2001:db8::1 ::1 12345 80\r\n".to_vec(), Some("[2001:db8::1]:12345")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (second(0x21, 0x11, &v4), Some("192.0.2.1:12345")),
            (second(0x21, 0x11, &with_more), Some("192.0.2.1:12345")),
            (second(0x21, 0x21, &v6), Some("[2001:db8::1]:12345")),
            (second(0x20, 0x00, &[]), None),
        ] {
            let mut bytes = header;
            bytes.extend(b"SREMP");
            let (result, left) = read(&bytes).await;
            assert_eq!(result.unwrap(), address.map(|text| text.parse().unwrap()));
            assert_eq!(left, 5, "what follows is not touched");
        }
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        let mut long = b"PROXY TCP4 ".to_vec();
        long.resize(2_000, b'1');
        for bytes in [
            b"SREMP\x01\x00".to_vec(),
            b"SREMP\x01\x00 and more than sixteen bytes of it".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 12345 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 123456 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\n".to_vec(),
            b"PRO".to_vec(),
            long,
            Vec::new(),
            second(0x11, 0x11, &v4),
            second(0x21, 0x11, &v4[..11]),
            second(0x21, 0x11, &[0; 2_000]),
            second(0x2f, 0x11, &v4),
        ] {
            let (result, _) = read(&bytes).await;
            assert!(result.is_err(), "{bytes:?} {result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_not_waited_for() {
        let (mut stream, _other) = tokio::io::duplex(64);
        assert!(matches!(read_header(&mut stream).await, Err(ProxyError::TimedOut)));
    }

    #[test]
    fn only_named_networks_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (address, is_so) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_trusted(&trusted, address.parse().unwrap()), is_so, "{address}");
        }
        assert!(!is_trusted(&[], "127.0.0.1".parse().unwrap()));
    }
}
