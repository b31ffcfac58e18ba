//! Addresses in tiles in shared memory.

use crate::decisions::shared_form::SharedForm;

/// Address of a 16-byte piece of a tile of 16-bit elements that starts at `at`.
pub(crate) fn piece(form: &SharedForm, at: &str, row: &str, piece: &str) -> String {
    let pieces = form.pieces();
    if form.cols <= 8 * pieces {
        return format!("{at} + swizzled<{pieces}>({row}, {piece})");
    }
    format!("{at} + swizzled<{pieces}, {}>({row}, {piece})", form.rows)
}
