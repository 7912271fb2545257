//! What the system says about this process, under the names that Prometheus' own clients use.
//! Where there is no `/proc`, the figures are left out.

use std::fs;
use std::time::Duration;

use super::{Family, Page};

/// Bytes of memory that the process occupies.
pub const RESIDENT: Family =
    Family::gauge("process_resident_memory_bytes", "Memory of the process in bytes.");
/// Open file descriptors.
pub const OPEN_FILES: Family = Family::gauge("process_open_fds", "File descriptors in use.");
/// Allowed file descriptors.
pub const MAX_FILES: Family = Family::gauge("process_max_fds", "File descriptors allowed.");
/// Processor time.
pub const CPU: Family =
    Family::counter("process_cpu_seconds_total", "Processor time used, in seconds.");

/// All figures of this file.
pub const FAMILIES: [Family; 4] = [RESIDENT, OPEN_FILES, MAX_FILES, CPU];

/// Clock ticks of `/proc/self/stat` in a second: the same on every Linux (`USER_HZ`).
const TICKS: u64 = 100;

/// File descriptors that this process may have open, where the system says.
#[must_use]
pub fn max_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// Puts the figures of this moment on a page.
pub fn put(page: &mut Page) {
    if let Some(bytes) = resident() {
        page.put(&RESIDENT, bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.put(&OPEN_FILES, u64::try_from(files.count()).unwrap_or(u64::MAX));
    }
    if let Some(files) = max_files() {
        page.put(&MAX_FILES, files);
    }
    if let Some(time) = cpu() {
        page.put_seconds(&CPU, time);
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

fn cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may contain anything; what follows is plain.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let used = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(used.checked_mul(1_000)?.checked_div(TICKS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_all_of_them() {
        let mut page = Page::default();
        put(&mut page);
        assert_eq!(page.families(), FAMILIES.map(|family| family.name));
        assert!(resident().unwrap() > 100_000);
        assert!(max_files().unwrap() > 2);
    }
}
