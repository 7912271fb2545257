//! Every key of a server's configuration has an effect that a test shows: for each key of the annotated
//! example there is a test named after it, or one elsewhere that is named. Each server's tests have this.

/// A key whose effect a test elsewhere shows: the key, the text of the file, the name of the test.
pub(crate) type Elsewhere = (&'static str, &'static str, &'static str);

/// Fails for a key of `example` without a test `section_key` in the text `here`, and none elsewhere; or
/// with both.
pub(crate) fn assert_shown(example: &str, here: &str, elsewhere: &[Elsewhere]) {
    let parsed: toml::Table = toml::from_str(example).unwrap();
    for (section, keys) in &parsed {
        for key in keys.as_table().unwrap().keys() {
            let name = format!("{section}.{key}");
            let is_here = here.contains(&format!("#[test]\nfn {section}_{key}() {{"));
            let is_elsewhere = elsewhere.iter().any(|(known, file, test)| {
                *known == name && file.contains(&format!("fn {test}()"))
            });
            assert!(is_here != is_elsewhere, "{name} needs a test");
        }
    }
}
