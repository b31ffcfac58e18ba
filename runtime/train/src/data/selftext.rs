//! The built-in dataset `selftext`: linc's own sources and docs, embedded at build by `build.rs`.

/// The files of the workspace, in the order of their paths, one document each.
pub(super) fn documents() -> Vec<String> {
    include_str!(concat!(env!("OUT_DIR"), "/selftext.txt")).split('\0').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_holds_this_file() {
        let documents = super::documents();
        assert!(documents.iter().any(|text| text.contains("fn it_holds_this_file")));
        assert!(documents.len() > 10 && documents.iter().all(|text| !text.trim().is_empty()));
        let bytes: usize = documents.iter().map(String::len).sum();
        assert!((50_000..4 << 20).contains(&bytes), "{bytes} bytes");
    }
}
