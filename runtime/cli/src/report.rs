//! `linc report`: one page on the runs in some folders.

use std::process::ExitCode;

use anyhow::Result;
use linc_study::report;

use crate::args::ReportArgs;
use crate::out;

pub(crate) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let written = report::write(&args.folders, args.out.as_deref())?;
    for sentence in &written.summary {
        out::line(sentence)?;
    }
    out::line(format_args!(
        "\nWrote {}, {} and {}",
        written.page.display(),
        written.csv.display(),
        written.markdown.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
