//! Settings that are accepted from TorchTitan's configs before linc does what they ask for.

use linc_checkpoint::AsyncMode;
use linc_config::Settings;

use super::JobConfig;

impl JobConfig {
    /// Settings that are TorchTitan's and do nothing yet say so where they ask for something.
    pub(super) fn warn_of_unread(&self, settings: &mut Settings<'_>) {
        let unread = [(
            self.checkpoint.async_mode == AsyncMode::AsyncPinned,
            "checkpoint.async_mode",
            "there is no pinned memory to copy through; it is taken for \"async\"",
        )];
        for (asked, name, what_happens) in unread {
            if asked {
                settings.warn(&[name], &format!("`{name}` has no effect: {what_happens}"));
            }
        }
    }
}
