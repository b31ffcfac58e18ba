//! The models and configs of the source folders, as parts of the program.
//!
//! To ship another file: put it into `models/` or `configs/` and name it here; a test compares the two.

use linc_config::shipped::{Shipped, ShippedFile};

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(ShippedFile {
            path: $path,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)),
        }),*]
    };
}

/// What an installed linc finds by name where there is no source folder.
pub(crate) const SHIPPED: Shipped = Shipped {
    configs: files![
        "configs/quickstart.toml",
        "configs/debug_model.toml",
        "configs/recall.toml",
        "configs/llama3_1b.toml",
        "configs/llama3_1b_linear_0.25.toml",
        "configs/llama3_1b_linear_0.50.toml",
        "configs/llama3_1b_linear_0.75.toml",
        "configs/llama3_1b_linear_1.00.toml",
        "configs/llama3_8b.toml",
        "configs/sweep_ratio.toml",
        "configs/sweep_placement.toml",
        "configs/sweep_lr.toml",
        "configs/sweep_length.toml",
        "configs/sweep_precision.toml",
    ],
    models: files![
        "models/llama3_nano.toml",
        "models/llama3_debugmodel.toml",
        "models/llama3_1b.toml",
        "models/llama3_3b.toml",
        "models/llama3_8b.toml",
        "models/llama3_70b.toml",
        "models/llama3_405b.toml",
        "models/recall_small.toml",
    ],
    architectures: files!["models/llama3.linc", "models/recall.linc"],
};

#[cfg(test)]
mod tests {
    use super::*;
    use linc_config::ModelFiles;
    use linc_config::shipped::init;
    use linc_study::sweep::Sweep;
    use linc_train::config::JobConfig;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_file_of_the_folders_is_shipped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (folder, files) in
            [("configs", vec![SHIPPED.configs]), ("models", vec![SHIPPED.models, SHIPPED.architectures])]
        {
            let there = fs::read_dir(root.join(folder)).expect("a folder of the source");
            let there: BTreeSet<String> = there
                .map(|entry| format!("{folder}/{}", entry.expect("entry").file_name().display()))
                .collect();
            let shipped: BTreeSet<String> =
                files.iter().flat_map(|files| files.iter()).map(|file| file.path.to_owned()).collect();
            assert_eq!(there, shipped);
        }
    }

    #[test]
    fn what_init_writes_loads_from_there() {
        let schema = crate::config::schema();
        for name in SHIPPED.configs.iter().chain(SHIPPED.models).map(ShippedFile::name) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let written = init(&SHIPPED, name, folder.path(), &schema)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(written.files.len(), 4);
            let config = fs::read_to_string(&written.config).expect("a config");
            let named =
                config.strip_prefix("#:schema ").and_then(|rest| rest.lines().next()).expect("a schema");
            let beside = written.config.parent().expect("a folder").join(named);
            assert_eq!(fs::read_to_string(beside).ok().as_ref(), Some(&schema));
            // A sweep starts from a config that stays built in.
            if config.lines().any(|line| line == "[sweep]") {
                let sweep =
                    Sweep::load(&written.config, &[], &SHIPPED).unwrap_or_else(|error| panic!("{error}"));
                assert!(sweep.runs.len() > 1 && sweep.warnings.is_empty());
                continue;
            }
            let loaded = JobConfig::load_file(&written.config, &[], &Shipped::NONE).expect("loads");
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            let model =
                ModelFiles::resolve(&loaded.config.model, &loaded.files, &Shipped::NONE).expect("its model");
            assert!(
                model.model_path.starts_with(folder.path())
                    && model.architecture_path.starts_with(folder.path())
            );
            // Writing the same again changes nothing; an edited file stays.
            init(&SHIPPED, name, folder.path(), &schema).expect("the same files");
            // The schema of another version is none that somebody wrote.
            init(&SHIPPED, name, folder.path(), "{}").expect("another schema");
            assert_eq!(fs::read_to_string(&written.files[3]).ok().as_deref(), Some("{}"));
            fs::write(&written.files[1], "edited").expect("write");
            let refused = init(&SHIPPED, name, folder.path(), &schema).expect_err("edited").to_string();
            assert!(refused.contains("exists and is another text"), "{refused}");
        }
    }

    #[test]
    fn a_misspelt_name_is_told_the_nearest() {
        let error =
            init(&SHIPPED, "quikstart", Path::new("nowhere"), "{}").expect_err("misspelt").to_string();
        assert!(error.contains("did you mean quickstart?"), "{error}");
    }
}
