//! What is said of a name that is no setting.

use super::Settings;
use crate::error::Place;
use crate::files::{BASE, BASE_HELP};
use crate::near::nearest;
use crate::section::{KeyInfo, section_order};

/// The section that makes a config a sweep.
const SWEEP: &str = "sweep";

impl Settings<'_> {
    /// Reports a name that is no setting, with the nearest that is.
    pub(super) fn unknown(&mut self, name: &str, place: Place) {
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        if key == BASE && !section.is_empty() {
            let message = format!("unknown setting `{name}`");
            return self.problem(message, place, Some(BASE_HELP.to_owned()));
        }
        let is_flag = matches!(place, Place::CommandLine(_));
        let spell = |name: &str| match name.rsplit_once('.') {
            Some((found, key)) if found == section && !is_flag => format!("`{key}`"),
            Some(_) if is_flag => format!("`--{name}`"),
            Some((found, key)) => format!("`{key}` of [{found}]"),
            None => format!("[{name}]"),
        };
        let (message, help) = if section.is_empty() {
            let sections = self.sections();
            let near = nearest(name, sections.iter().map(String::as_str));
            let listed = format!("the sections are [{}]", sections.join("] ["));
            match (name, &place) {
                (SWEEP, Place::File(at)) => (
                    format!("[{name}] makes this a sweep of many runs"),
                    format!("`linc sweep {}` carries them out", at.file),
                ),
                _ => (
                    format!("unknown section [{name}]"),
                    near.map_or(listed, |near| format!("did you mean [{near}]?")),
                ),
            }
        } else {
            let message = if is_flag {
                format!("unknown setting `{name}`")
            } else {
                format!("unknown key `{key}` in [{section}]")
            };
            let here: Vec<&str> = self
                .keys
                .iter()
                .map(|info| info.name.as_str())
                .filter(|known| known.rsplit_once('.').is_some_and(|(found, _)| found == section))
                .collect();
            let bare = |known: &&str| known.rsplit_once('.').map_or(*known, |(_, key)| key) == key;
            let elsewhere = self.keys.iter().map(|info| info.name.as_str()).find(|known| bare(known));
            let near = elsewhere
                .or_else(|| nearest(name, here.iter().copied()))
                .or_else(|| nearest(name, self.keys.iter().map(|info| info.name.as_str())));
            let help = match near {
                Some(near) => format!("did you mean {}?", spell(near)),
                None if here.is_empty() => format!("the sections are [{}]", self.sections().join("] [")),
                None => {
                    let bare: Vec<&str> = here.iter().filter_map(|known| known.rsplit('.').next()).collect();
                    format!("[{section}] has {}", bare.join(", "))
                }
            };
            (message, help)
        };
        self.problem(message, place, Some(help));
    }

    fn sections(&self) -> Vec<String> {
        section_order(self.keys.iter().map(KeyInfo::section))
    }
}
