//! Where a node comes from: its layer, which passes ask for, and the blocks around it, which are for people.

use std::fmt;

/// What the name of a layer begins with in the text form.
const LAYERS: &str = "layers.";

/// Where a node comes from; prints as `layers.3/attention/norm`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scope {
    /// Position in the stack of layers, from 0; `None` outside of it.
    pub layer: Option<usize>,
    /// The blocks around it, for people: `attention/norm`.
    pub path: String,
}

impl Scope {
    /// True if nothing is known of the node.
    pub fn is_empty(&self) -> bool {
        self.layer.is_none() && self.path.is_empty()
    }

    /// Reads what a scope prints, for the text form. A first block of the form `layers.3` is the layer.
    pub(crate) fn read(text: &str) -> Self {
        let (first, rest) = text.split_once('/').unwrap_or((text, ""));
        let layer = first.strip_prefix(LAYERS).and_then(|number| number.parse().ok());
        let scope = Scope { layer, path: rest.into() };
        // Whatever would print in another way is a path.
        if layer.is_some() && scope.to_string() == text { scope } else { text.into() }
    }
}

impl From<&str> for Scope {
    fn from(path: &str) -> Self {
        Scope { layer: None, path: path.into() }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            None => f.write_str(&self.path),
            Some(layer) if self.path.is_empty() => write!(f, "{LAYERS}{layer}"),
            Some(layer) => write!(f, "{LAYERS}{layer}/{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let scope = |layer, path: &str| Scope { layer, path: path.into() };
        for (text, expected) in [
            ("layers.3/attention/norm", scope(Some(3), "attention/norm")),
            ("layers.12", scope(Some(12), "")),
            ("layers.3/layers.4", scope(Some(3), "layers.4")),
            ("optimizer", scope(None, "optimizer")),
            ("encoder/layers.3", scope(None, "encoder/layers.3")),
            // Nothing that prints in another way.
            ("layers.03/attention", scope(None, "layers.03/attention")),
            ("layers.3/", scope(None, "layers.3/")),
            ("layers.+3", scope(None, "layers.+3")),
            ("layers.x/norm", scope(None, "layers.x/norm")),
            ("", scope(None, "")),
        ] {
            let read = Scope::read(text);
            assert_eq!(read, expected);
            assert_eq!(read.to_string(), text);
        }
    }
}
