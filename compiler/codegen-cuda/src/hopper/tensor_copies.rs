//! Copies of whole tiles by TMA (PTX ISA, `cp.async.bulk.tensor`).

use crate::TensorMap;
use crate::decisions::shared_form::SharedForm;
use crate::text::writer::Writer;

/// The maps of a kernel: arguments behind its pointers. Equal maps are one.
#[derive(Clone, Default)]
pub(crate) struct Maps(Vec<TensorMap>);

impl Maps {
    /// Those that the kernel has.
    pub(crate) fn known(&self) -> &[TensorMap] {
        &self.0
    }

    /// The name of the argument for a map.
    fn name(&mut self, map: TensorMap) -> String {
        let at = self.0.iter().position(|known| *known == map).unwrap_or_else(|| {
            self.0.push(map);
            self.0.len() - 1
        });
        format!("maps{at}")
    }

    /// Writes the copies of one tile from element `offset` of its parameter to the place at `at`, panel by panel, by the
    /// thread that acquired the pipeline.
    pub(crate) fn copy(
        &mut self,
        out: &mut Writer,
        map: TensorMap,
        offset: &str,
        form: &SharedForm,
        at: &str,
    ) {
        let name = self.name(map);
        let TensorMap { stride, columns, .. } = map;
        out.open("");
        out.line(format!("const int x = (int)({offset} % {stride}), y = (int)({offset} / {stride});"));
        for panel in 0..form.extent[1] / columns as usize {
            let plus = |n: usize| if n == 0 { String::new() } else { format!(" + {n}") };
            out.line(format!(
                "copy_tile_async({at}{}, {name}, x{}, y, arrival);",
                plus(panel * form.panel()),
                plus(panel * columns as usize)
            ));
        }
        out.close();
    }
}
