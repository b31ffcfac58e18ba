//! The nearest known name to a misspelt one.

/// The candidate with the smallest edit distance to `name`, if it is near enough to be a typing error.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ; comparing long garbage would only cost time.
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    if name.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|c| *c != name)
        .map(|c| (strsim::damerau_levenshtein(&name.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= allowed && *distance < c.chars().count())
        .min()
        .map(|(_, c)| c)
}

/// `did you mean ...?`, or nothing if no candidate is near.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|c| format!("did you mean `{c}`?"))
}
