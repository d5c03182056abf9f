use inkstone::memory::{Limit, LimitOf, StageMemory, Usage};
use inkstone::pipeline::Made;
use inkstone::weights::Component;

use super::*;

const GIB: u64 = 1 << 30;

/// A streamed step over so many bytes of weights, 1 GiB of work beside them, on a machine with so much memory.
fn row(weights_bytes: u64, memory_bytes: Option<u64>) -> Row {
    let work = usize::try_from(GIB).unwrap();
    let memory = inkstone::memory::MemoryPlan {
        offload: Offload::Stream,
        pictures: 1,
        two_passes: false,
        stages: vec![StageMemory {
            stage: Stage::Denoise,
            peak: Default::default(),
            anonymous_bytes: work,
            products: Default::default(),
        }],
        base: Usage::default(),
        files_bytes: weights_bytes,
        before_bytes: 0,
    };
    let step_weights_bytes = usize::try_from(weights_bytes).unwrap();
    let forecast = Forecast { memory, steps: 4, step_weights_bytes, made: Default::default() };
    let limit = memory_bytes.map(|bytes| Limit { bytes, of: LimitOf::Free });
    let reread_bytes = forecast.reread_bytes(&Limits { resident: limit, ..Limits::default() });
    Row {
        size: Size { width_px: 64, height_px: 64 },
        dtype: "bf16",
        form: Form::Stored,
        offload: Offload::Stream,
        conversion: None,
        forecast,
        seconds: Some(Seconds { compute_s: 2.0, step_s: 2.0, picture_s: 8.0 }),
        shortage: None,
        reread_bytes,
        processor_share: Some(1.0),
    }
}

#[test]
fn a_busy_machine_is_told() {
    let with = |shares: &[Option<f64>]| {
        let rows: Vec<Row> =
            shares.iter().map(|share| Row { processor_share: *share, ..row(GIB, None) }).collect();
        table::busy(&rows)
    };
    assert_eq!(with(&[None, None]), None);
    assert_eq!(with(&[Some(0.4), Some(0.95), Some(1.0)]), None, "one measurement of three was disturbed");
    let told = with(&[Some(0.31), Some(0.4), Some(1.0)]).unwrap();
    assert!(told.starts_with("busy: other programs left 40 % of the processor"), "{told}");
}

/// 27 GiB of weights in 32 GiB of memory stay in the system's cache; in 16 GiB each step reads all of them again.
#[test]
fn what_takes_the_time_is_reading_where_memory_holds_no_step() {
    let fits = row(27 * GIB, Some(32 * GIB));
    assert!(
        !fits.reads() && table::bottleneck(&fits, None).starts_with("time: the processor's arithmetic; of")
    );
    let reads = row(27 * GIB, Some(16 * GIB));
    assert_eq!(reads.reread_bytes, Some(27 * GIB));
    let told = table::bottleneck(&reads, None);
    assert!(told.starts_with("time: reading: each step reads 27.0 GiB from the disk again"), "{told}");
    assert!(!told.contains("processor"), "{told}");
    let unknown = row(27 * GIB, None);
    let told = table::bottleneck(&unknown, None);
    assert!(!unknown.reads() && told.contains("if memory holds the 27.0 GiB that a step reads"), "{told}");
    // Weights and work fill the memory exactly but for the reserve that every plan has.
    assert!(row(15 * GIB, Some(16 * GIB)).reads());
}

/// 27 GiB at 3 GiB a second take 9 s, at 27 GiB a second 1 s: of arithmetic of 2 s the first waits, the second does not.
#[test]
fn a_step_takes_what_its_reading_takes_where_that_is_longer() {
    let disk = |gib: f64| Some(DiskSpeed { bytes_a_second: gib * 1_073_741_824.0 });
    let rates = Rates { linear: 1.0, attention: 1.0, conv: 1.0, elements: 1.0, processor_share: None };
    let mut forecast = row(27 * GIB, Some(16 * GIB)).forecast;
    forecast.memory.stages[0].products.linear = 2.0;
    let seconds = |reread_bytes, disk| seconds(&forecast, &[rates], reread_bytes, disk);
    let reads = Some(27 * GIB);
    for (reread_bytes, disk, step_s) in [
        (reads, disk(3.0), 9.0),
        (reads, disk(27.0), 2.0),
        (reads, None, 2.0),
        (Some(0), disk(3.0), 2.0),
        (None, disk(3.0), 2.0),
    ] {
        let want = Seconds { compute_s: 2.0, step_s, picture_s: 4.0 * step_s };
        assert_eq!(seconds(reread_bytes, disk), want, "{reread_bytes:?} {disk:?}");
    }
    let reads = row(27 * GIB, Some(16 * GIB));
    let told = table::bottleneck(&reads, disk(3.0));
    assert!(
        told.starts_with("time: reading: each step reads 27.0 GiB from the disk again in 9.00 s"),
        "{told}"
    );
    let told = table::bottleneck(&reads, disk(27.0));
    assert!(
        told.starts_with("time: the processor's arithmetic, of which") && told.contains("in 1.00 s"),
        "{told}"
    );
}

/// Where memory does not suffice to measure in, there is a table all the same.
#[test]
fn times_that_are_not_known_are_told_as_that() {
    let pipeline =
        Pipeline::open(&inkstone::weights::ModelSource::Embedded, &OpenOptions::default()).unwrap();
    let unknown = |offload| Row { seconds: None, offload, ..row(GIB, Some(32 * GIB)) };
    let rows = [unknown(Offload::Stream), unknown(Offload::None), row(GIB, Some(32 * GIB))];
    let told = |rows: &[Row]| {
        let best = best(rows, Size { width_px: 64, height_px: 64 }, None);
        table::table(rows, best, &Limits::default(), &pipeline, None, None)
    };
    let all = told(&rows);
    let line = |i: usize| all.lines().nth(3 + i).unwrap();
    assert!(line(0).ends_with("           -           -"), "{all}");
    assert!(line(2).ends_with("2.00 s      8.00 s  best"), "what is known is the fastest: {all}");
    assert!(all.contains("\n- times that are not known: there is no memory to measure them in\n"), "{all}");
    let none = told(&rows[..2]);
    assert!(none.contains("best: --size 64x64 --dtype bf16 --offload none\n"), "{none}");
    assert!(!told(&rows[2..]).contains("not known"));
}

/// 25 GiB of weights that each step reads again in 523 s, beside 13 GiB that stay, with 283 s of arithmetic: they must be saved
/// before, as `-q` holds all of them, which do not fit.
#[test]
fn weights_that_are_yet_to_be_saved_are_named_with_the_commands() {
    let made = |form: Form| Made { format: form.quantization(), is_changed: form != Form::Stored };
    let with = |form: Form, weights_bytes: u64, step_s: f64, fits: bool| {
        let conversion = matches!(form, Form::Converted(_)).then(|| Conversion {
            command: "inkstone convert big -q int8 -o big-int8".into(),
            then: "-m big-int8".into(),
        });
        let mut row = Row { form, conversion, ..row(weights_bytes, Some(16 * GIB)) };
        row.seconds = Some(Seconds { compute_s: step_s, step_s, picture_s: 4.0 * step_s });
        row.forecast.made.insert(Component::Transformer, made(form));
        row.shortage = (!fits).then(|| {
            let limit = Limit { bytes: 8 * GIB, of: LimitOf::MaxMemory };
            Shortage { needed_bytes: 14 * GIB, limit, is_least: false }
        });
        row
    };
    let (loaded, converted) = (Form::Loaded(Quantization::Int8), Form::Converted(Quantization::Int8));
    let small = Size { width_px: 64, height_px: 64 };
    let disk = Some(DiskSpeed { bytes_a_second: 5e7 });
    let mut rows = vec![
        with(Form::Stored, 25 * GIB, 523.0, true),
        with(loaded, 13 * GIB, 283.0, false),
        with(converted, 13 * GIB, 283.0, true),
    ];
    assert!(rows[0].reads() && !rows[2].reads());
    let commands = "inkstone convert big -q int8 -o big-int8, then -m big-int8 --size 64x64 --dtype bf16 --offload stream";
    for disk in [disk, None] {
        let first = best(&rows, small, disk).unwrap();
        assert_eq!(
            (first.form, first.commands().as_str()),
            (Form::Stored, "--size 64x64 --dtype bf16 --offload stream")
        );
        let (row, gain) = table::faster(&rows, first, disk).unwrap();
        assert_eq!(row.commands(), commands);
        assert_eq!(gain.contains("1.8 times"), disk.is_some(), "{gain}");
    }
    // Where `-q` fits too it is as fast, and nothing has to be saved.
    rows[1].shortage = None;
    rows[1].offload = Offload::None;
    let (row, _) = table::faster(&rows, &rows[0], disk).unwrap();
    assert_eq!(row.commands(), "--size 64x64 --dtype bf16 -q int8 --offload none");
    // Where nothing else fits it is the best one.
    (rows[0].shortage, rows[1].shortage) =
        (with(loaded, GIB, 1.0, false).shortage, with(loaded, GIB, 1.0, false).shortage);
    assert_eq!(best(&rows, small, disk).unwrap().commands(), commands);
}
