//! What a lane does next, in every situation.

use std::sync::LazyLock;

use sremp_common::key::IdentitySecret;

use super::*;

/// Three relays of the recipient.
static KEYS: LazyLock<Vec<IdentityKey>> = LazyLock::new(|| {
    let key = |number| IdentitySecret::generate(&mut Entropy::from_number(number)).public();
    (1..=3).map(key).collect()
});

/// Two of them may be used.
fn relays() -> Means<'static> {
    Means { session: false, dialable: true, relays: &KEYS[..2], relay_first: false }
}

fn open() -> Means<'static> {
    Means { session: true, ..relays() }
}

fn relay(place: usize) -> Path {
    Path::Relay(KEYS[place])
}

const NOW: Instant = Instant::from_millis(1000);

fn send(lane: &mut Lane, blob: u64, path: Path, now: Instant) {
    lane.sent(blob, path, Duration::ZERO, now);
}

#[test]
fn relay_path_starts_after_half_a_second() {
    let mut lane = Lane::default();
    assert_eq!(lane.step(relays(), NOW), Step::Wait(Some(NOW + RELAY_AFTER)));
    assert_eq!(lane.step(relays(), NOW + RELAY_AFTER), Step::Send(relay(0), WINDOW));
}

#[test]
fn a_session_goes_before_everything() {
    let mut lane = Lane::default();
    assert_eq!(lane.step(open(), NOW), Step::Send(Path::Direct, WINDOW));
}

#[test]
fn all_relays_are_tried_before_waiting() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    let means = Means { dialable: false, ..relays() };
    for place in [0, 1] {
        assert_eq!(lane.step(means, NOW), Step::Send(relay(place), WINDOW));
        send(&mut lane, 7, relay(place), NOW);
        lane.failed(7, Way::Relay, means, Duration::ZERO, &mut entropy, NOW);
        assert_eq!(lane.failed_first(9), [7]);
    }
    let Step::Wait(Some(until)) = lane.step(means, NOW) else { panic!() };
    assert_eq!(lane.step(means, until), Step::Send(relay(0), WINDOW));
}

/// While a relay asks to be left alone, the others keep their places, and none is passed over.
#[test]
fn a_relay_that_wants_to_be_left_alone_hides_none_of_the_others() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    let all = relays();
    let with = |relays: &'static [IdentityKey]| Means { dialable: false, relays, ..all };
    let wait = Duration::from_secs(60);
    assert_eq!(lane.step(with(&KEYS), NOW), Step::Send(relay(0), WINDOW));
    send(&mut lane, 7, relay(0), NOW);
    // The first of three refuses: then it is not among those that may be used.
    lane.failed(7, Way::Relay, with(&KEYS), wait, &mut entropy, NOW);
    assert_eq!(lane.step(with(&KEYS[1..]), NOW), Step::Send(relay(1), WINDOW));
    send(&mut lane, 7, relay(1), NOW);
    lane.failed(7, Way::Relay, with(&KEYS[1..]), wait, &mut entropy, NOW);
    assert_eq!(lane.step(with(&KEYS[2..]), NOW), Step::Send(relay(2), WINDOW));
    send(&mut lane, 7, relay(2), NOW);
    // The first may be asked again, which is not the one that fails now.
    lane.failed(7, Way::Relay, with(&[]), Duration::ZERO, &mut entropy, NOW);
    assert!(matches!(lane.step(with(&KEYS), NOW), Step::Wait(Some(_))), "all have failed");

    // One that works stays in use when those before it come back.
    let mut lane = Lane::default();
    assert_eq!(lane.step(with(&KEYS[1..]), NOW), Step::Send(relay(1), WINDOW));
    send(&mut lane, 7, relay(1), NOW);
    lane.stored(7, Way::Relay, NOW);
    assert_eq!(lane.step(with(&KEYS), NOW), Step::Send(relay(1), WINDOW));
    send(&mut lane, 8, relay(1), NOW);
    send(&mut lane, 9, relay(1), NOW);
    lane.failed(8, Way::Relay, with(&KEYS), Duration::ZERO, &mut entropy, NOW);
    assert_eq!(lane.step(with(&KEYS), NOW), Step::Send(relay(0), WINDOW - 1));
    // What failed together with it says nothing about the next one.
    lane.failed(9, Way::Relay, with(&KEYS), Duration::ZERO, &mut entropy, NOW);
    assert_eq!(lane.step(with(&KEYS), NOW), Step::Send(relay(0), WINDOW));
}

#[test]
fn a_silent_session_finds_the_relay_that_has_no_copy() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    send(&mut lane, 7, Path::Direct, NOW);
    let now = NOW + SILENT_AFTER;
    let with = |relays: &'static [IdentityKey]| Means { relays, ..open() };
    assert_eq!(lane.silent(with(&KEYS[..2]), now), [(7, relay(0))]);
    send(&mut lane, 7, relay(0), now);
    // It wants to be left alone: one is left, and it is the other one.
    lane.failed(7, Way::Relay, with(&KEYS[..2]), Duration::from_secs(60), &mut entropy, now);
    assert_eq!(lane.silent(with(&KEYS[1..2]), now), [(7, relay(1))]);
    send(&mut lane, 7, relay(1), now);
    lane.failed(7, Way::Relay, with(&KEYS[1..2]), Duration::ZERO, &mut entropy, now);
    // None gets a second copy, also when the first may be asked again.
    assert!(lane.silent(with(&KEYS[..2]), now).is_empty());
}

#[test]
fn a_further_copy_leaves_once() {
    let mut lane = Lane::default();
    assert!(lane.copied(7, KEYS[1]));
    assert!(!lane.copied(7, KEYS[1]));
    // It becomes the one that counts, or is answered.
    assert!(lane.copy_answered(7, KEYS[1]));
    assert!(!lane.copy_answered(7, KEYS[1]));
    assert!(lane.copied(7, KEYS[1]));
}

#[test]
fn a_window_is_kept() {
    let mut lane = Lane::default();
    let means = Means { session: true, ..Means::default() };
    for blob in 0..u64::try_from(WINDOW).unwrap() {
        send(&mut lane, blob, Path::Direct, NOW);
    }
    assert_eq!(lane.step(means, NOW), Step::Wait(None));
    lane.stored(0, Way::Direct, NOW);
    assert_eq!(lane.step(means, NOW), Step::Send(Path::Direct, 1));
}

#[test]
fn what_a_silent_session_has_goes_to_a_relay_as_well() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    send(&mut lane, 7, Path::Direct, NOW);
    let silent_at = NOW + SILENT_AFTER;
    assert_eq!(lane.wake_at(), Some(silent_at));
    assert!(lane.silent(open(), NOW).is_empty());
    assert_eq!(lane.silent(open(), silent_at), [(7, relay(0))]);
    send(&mut lane, 7, relay(0), silent_at);
    assert!(lane.silent(open(), silent_at + SILENT_AFTER).is_empty(), "once");
    // The session's end changes nothing: the relay still has it.
    lane.failed(7, Way::Direct, relays(), Duration::ZERO, &mut entropy, silent_at);
    assert!(lane.failed_first(9).is_empty());
    lane.stored(7, Way::Relay, silent_at);
    assert!(lane.is_quiet() && lane.relayed);
    assert_eq!(lane.wake_at(), None);
}

#[test]
fn each_relay_gets_one_copy_while_the_session_is_silent() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    send(&mut lane, 7, Path::Direct, NOW);
    let now = NOW + SILENT_AFTER;
    for place in [0, 1] {
        assert_eq!(lane.silent(open(), now), [(7, relay(place))]);
        send(&mut lane, 7, relay(place), now);
        lane.failed(7, Way::Relay, open(), Duration::ZERO, &mut entropy, now);
    }
    assert!(lane.silent(open(), now).is_empty());
    // The session still has it: nothing is sent again, and what is new is not held up.
    assert!(lane.failed_first(9).is_empty());
    assert_eq!(lane.step(open(), now), Step::Send(Path::Direct, WINDOW - 1));
    lane.failed(7, Way::Direct, relays(), Duration::ZERO, &mut entropy, now);
    assert_eq!(lane.failed_first(9), [7]);
}

#[test]
fn a_slow_session_is_not_a_silent_one() {
    let mut lane = Lane::default();
    for blob in 0..4 {
        send(&mut lane, blob, Path::Direct, NOW);
    }
    let half = NOW + SILENT_AFTER / 2;
    lane.stored(0, Way::Direct, half);
    assert!(lane.silent(open(), NOW + SILENT_AFTER).is_empty());
    assert_eq!(lane.wake_at(), Some(half + SILENT_AFTER));
    let all = lane.silent(open(), half + SILENT_AFTER);
    assert_eq!(all.iter().map(|(blob, _)| *blob).collect::<Vec<_>>(), [1, 2, 3]);
    // A large blob has longer.
    let mut lane = Lane::default();
    lane.sent(9, Path::Direct, SILENT_AFTER, NOW);
    assert!(lane.silent(open(), NOW + SILENT_AFTER).is_empty());
    assert_eq!(lane.silent(open(), NOW + SILENT_AFTER * 2), [(9, relay(0))]);
}

#[test]
fn without_a_relay_that_may_be_used_a_silent_session_is_all_there_is() {
    let mut lane = Lane::default();
    send(&mut lane, 7, Path::Direct, NOW);
    let direct_only = Means { relays: &[], ..open() };
    assert!(lane.silent(direct_only, NOW + SILENT_AFTER).is_empty());
    assert_eq!(lane.wake_at(), None);
}

#[test]
fn pauses_go_on_where_they_were_after_a_restart() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    for _ in 0..20 {
        let now = lane.wake_at().unwrap_or(NOW);
        lane.wait(Duration::ZERO, &mut entropy, now);
    }
    let pauses = lane.changed_pauses().unwrap();
    assert_eq!(lane.changed_pauses(), None, "written once");
    lane.wait(Duration::ZERO, &mut entropy, lane.wake_at().unwrap());
    assert_eq!(lane.changed_pauses(), None, "at the cap nothing more is written");
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let mut lane = Lane::resumed(pauses);
        assert_eq!(lane.changed_pauses(), None);
        assert!(lane.probe_is_due(&mut entropy, NOW), "the first attempt is made at once");
        lane.wait(Duration::ZERO, &mut entropy, NOW);
        longest = longest.max(lane.wake_at().unwrap().since(NOW));
    }
    assert!(longest > Duration::from_secs(100), "{longest:?}");
    lane.stored(1, Way::Relay, NOW);
    assert_eq!(lane.changed_pauses(), Some(Pauses::default()));
}

#[test]
fn a_node_that_takes_nothing_is_not_dialled_more_often_for_coming_in_sight() {
    let mut entropy = Entropy::from_number(1);
    let mut lane = Lane::default();
    assert!(lane.probe_is_due(&mut entropy, NOW));
    lane.in_sight();
    assert!(!lane.probe_is_due(&mut entropy, NOW));
    // It has taken something: it is worth to look for it at once.
    lane.stored(1, Way::Direct, NOW);
    assert!(lane.probe_is_due(&mut entropy, NOW));
}
