//! `linc watch`: how runs go, drawn again and again, or as text.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Result;
use linc_device::signals;
use linc_watch::{Watched, screen, text};

use crate::args::WatchArgs;
use crate::console::allows_color;
use crate::out;
use crate::progress::is_dumb;

/// A key ends it as well, and there is nothing to save.
const NOTICES: signals::Notices = signals::Notices { first: "", second: "" };

pub(crate) fn run(args: &WatchArgs) -> Result<ExitCode> {
    let watched = Watched::open(&args.folders)?;
    let drawable = io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb();
    if args.once || !drawable {
        out::line(text(&watched))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = signals::catch(NOTICES);
    screen(watched, stop, allows_color())?;
    Ok(signals::exit_code().map_or(ExitCode::SUCCESS, ExitCode::from))
}
