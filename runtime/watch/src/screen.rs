//! The screen: drawn again and again until a key or a signal ends it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::curve::Curve;
use crate::error::WatchError;
use crate::view::View;
use crate::watched::Watched;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at the keyboard and at `stop`.
const TICK: Duration = Duration::from_millis(100);

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Redraw,
    End,
}

/// Draws the runs until `q`, Escape or Ctrl-C is typed or `stop` is set. The terminal is then as it was.
///
/// # Errors
/// [`WatchError::Terminal`]. Files that cannot be read any more are said on the screen.
pub fn screen(mut watched: Watched, stop: &AtomicBool, color: bool) -> Result<(), WatchError> {
    // It is given back also where a panic ends the program.
    let mut terminal = ratatui::try_init()?;
    let mut view = View::new(color);
    let mut draw_all = || -> io::Result<()> {
        let mut looked = Instant::now();
        terminal.draw(|frame| view.draw(&watched, SystemTime::now(), frame))?;
        while !stop.load(Ordering::Relaxed) {
            let mut redraw = false;
            if event::poll(TICK)? {
                match asked(&event::read()?, &mut view) {
                    Asked::End => break,
                    Asked::Redraw => redraw = true,
                    Asked::Nothing => {}
                }
            }
            if looked.elapsed() >= LOOK {
                view.trouble = watched.update().err().map(|error| error.to_string());
                (looked, redraw) = (Instant::now(), true);
            }
            if redraw {
                terminal.draw(|frame| view.draw(&watched, SystemTime::now(), frame))?;
            }
        }
        Ok(())
    };
    let drawn = draw_all();
    ratatui::try_restore()?;
    Ok(drawn?)
}

fn asked(event: &Event, view: &mut View) -> Asked {
    let Event::Key(key) = event else { return Asked::Redraw };
    if key.kind == KeyEventKind::Release {
        return Asked::Nothing;
    }
    let curves = Curve::SECOND.len();
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::End,
        KeyCode::Char('q') | KeyCode::Esc => return Asked::End,
        KeyCode::Tab | KeyCode::Right => view.second = (view.second + 1) % curves,
        KeyCode::BackTab | KeyCode::Left => view.second = (view.second + curves - 1) % curves,
        KeyCode::Char('l') => view.log = !view.log,
        KeyCode::Char('t') => view.tail = !view.tail,
        _ => return Asked::Nothing,
    }
    Asked::Redraw
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_change_the_view_and_end_it() {
        let mut view = View::new(false);
        let mut typed = |code, modifiers| {
            let asked = asked(&Event::Key(KeyEvent::new(code, modifiers)), &mut view);
            (asked, view.second, view.log)
        };
        let none = KeyModifiers::NONE;
        assert_eq!(typed(KeyCode::Tab, none), (Asked::Redraw, 1, false));
        assert_eq!(typed(KeyCode::Left, none), (Asked::Redraw, 0, false));
        assert_eq!(typed(KeyCode::BackTab, none), (Asked::Redraw, Curve::SECOND.len() - 1, false));
        assert_eq!(typed(KeyCode::Tab, none), (Asked::Redraw, 0, false));
        assert_eq!(typed(KeyCode::Char('l'), none), (Asked::Redraw, 0, true));
        assert_eq!(typed(KeyCode::Char('c'), none), (Asked::Nothing, 0, true));
        assert_eq!(typed(KeyCode::Char('c'), KeyModifiers::CONTROL).0, Asked::End);
        assert_eq!(typed(KeyCode::Char('q'), none).0, Asked::End);
        assert_eq!(asked(&Event::Resize(9, 9), &mut view), Asked::Redraw);
    }
}
