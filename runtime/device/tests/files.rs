//! Tile programs that are files (`tests/cases/tiles`): generated code against the tile interpreter.

use crate::support::check_all;
use linc_cases::files::tile_files;

#[test]
fn tile_programs_give_the_values_of_the_interpreter() {
    check_all(tile_files().into_iter().map(|mut file| {
        // A failure names the kernel: here, the file.
        let name = file.path.trim_end_matches(".tile").replace('/', "_");
        file.case.kernel.name = name;
        file.case
    }));
}
