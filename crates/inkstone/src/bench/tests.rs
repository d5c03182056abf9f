use super::*;

fn options() -> Options {
    let model = RandomModel { blocks: 1, layers: 1 };
    Options {
        threads: Some(1),
        isa: None,
        precision: Precision::F32,
        quantization: None,
        clock: Clock::Wall,
        model,
    }
}

#[test]
fn every_case_is_read_back_from_its_name() {
    for group in [Group::Kernels, Group::Stages, Group::Pictures] {
        for case in group.cases(512) {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
    }
    for name in ["", "block", "block/", "block/100", "linear/1x2", "linear/0x1x1", "decode/999999", "cat/3"] {
        assert_eq!(name.parse::<Case>(), Err(ParseCaseError), "{name}");
    }
}

/// Figures of the peers' scripts: 68.3 GFLOP a block at 256 pixels, 255.1 at 512, 59.9 a layer at 128 tokens. They
/// count the modulation of one timestep (24 D^2) too.
#[test]
fn work_is_counted_as_the_peers_count_it() {
    let gflop = |name: &str| 2e-9 * name.parse::<Case>().unwrap().products().unwrap();
    let modulation = gflop("modulations/1");
    assert!((gflop("block/256") + modulation - 68.3).abs() < 0.1);
    assert!((gflop("block/512") + modulation - 255.1).abs() < 0.1);
    assert!((gflop("layer/128") - 59.9).abs() < 0.1);
    assert!((gflop("linear/1088x3072x12288") - 82.14).abs() < 0.01);
}

/// The peers' decoder takes 706 GFLOP at 256 pixels. Its upsampling convolutions (48.9), shortcuts and attention (3)
/// are 2-D; of the rest, in kernels of 3 slices, a picture meets one; of an upsampling convolution's nine products with pixels
/// of which two or four are the same, four are made: 4 / 9 * 48.9 + 3 + 654 / 3.
#[test]
fn a_decoder_of_pictures_takes_a_third_of_one_of_videos() {
    let gflop = 2e-9 * Case::Decode { side_px: 256, strip_px: None }.products().unwrap();
    assert!((gflop - 242.8).abs() < 1.0, "{gflop}");
}

#[test]
fn a_small_case_is_measured() {
    let bench = Bench::new(options()).unwrap();
    let mut prepared = bench.prepare(Case::Linear { rows: 8, n_in: 64, n_out: 32 }).unwrap();
    let measured = prepared.measure(3).unwrap();
    assert_eq!((measured.case.as_str(), measured.dtype.as_str()), ("linear/8x64x32", "f32"));
    assert_eq!(measured.rounds.len(), 3);
    assert!(measured.seconds > 0.0 && measured.seconds_min <= measured.seconds);
    let gflops = 2e-9 * 8.0 * 64.0 * 32.0 / measured.seconds;
    assert!((measured.gflops.unwrap() / gflops - 1.0).abs() < 1e-9);
}

/// A product of 2e6 operations, in rounds of 1, 2, 9 and 4 ms: 2, 1, 0.2 and 0.5 GFLOP/s.
#[test]
fn shares_are_of_the_peak_beside_them_and_busy_rounds_do_not_count() {
    let bench = Bench::new(options()).unwrap();
    let prepared = bench.prepare(Case::Linear { rows: 100, n_in: 100, n_out: 100 }).unwrap();
    let round = |ms: f64, peak: Option<f64>, pace: Option<f64>| Round {
        seconds: ms * 1e-3,
        peak_gflops: peak,
        pace_gflops: pace,
    };
    let near = |got: Option<f64>, want: f64| got.is_some_and(|got| (got / want - 1.0).abs() < 1e-9);
    // The third ran while the machine did 89 % of its best.
    let paces = [10.0, 9.0, 8.9, 9.5];
    let rounds: Vec<Round> = [1.0, 2.0, 9.0, 4.0]
        .into_iter()
        .zip(paces)
        .map(|(ms, pace)| round(ms, Some(pace), Some(pace)))
        .collect();
    let told = prepared.summary(rounds.clone());
    assert_eq!((told.busy_rounds, &told.rounds), (1, &rounds));
    assert_eq!((told.seconds_min, told.seconds, told.seconds_max), (1e-3, 2e-3, 4e-3));
    assert!(near(told.gflops, 1.0) && near(told.peak_percent, 100.0 / 9.0), "{told:?}");
    // Without a peak there is no share, and rounds count by their pace; without either all do.
    let told = prepared.summary(rounds.iter().map(|r| Round { peak_gflops: None, ..*r }).collect());
    assert_eq!((told.busy_rounds, told.seconds, told.peak_percent), (1, 2e-3, None));
    let told = prepared.summary(rounds.iter().map(|r| round(1e3 * r.seconds, None, None)).collect());
    assert!((told.busy_rounds, told.peak_percent) == (0, None) && near(Some(told.seconds), 3e-3), "{told:?}");
}

/// On every table, whatever its operands: shares are of something, and rounds on a machine that was busy are known.
#[test]
fn rounds_have_a_pace_and_shares_are_of_a_peak() {
    for table in tables() {
        for (precision, quantization, name) in [
            (Precision::F32, None, "f32"),
            (Precision::Bf16, None, "bf16"),
            (Precision::F32, Some(Quantization::Int8), "int8"),
        ] {
            // On the processor's clock other programs take little from either side of the share.
            let (isa, clock) = (Some(table.to_owned()), Clock::Processor);
            let bench = Bench::new(Options { isa, precision, quantization, clock, ..options() }).unwrap();
            let case = Case::Linear { rows: 64, n_in: 256, n_out: 256 };
            let measured = bench.prepare(case).unwrap().measure(3).unwrap();
            let has_peak = cfg!(target_arch = "x86_64") && (table, name) != ("scalar", "int8");
            assert_eq!(measured.peak_percent.is_some(), has_peak, "{table} {name}");
            // How large it is depends on what else the machine did in these milliseconds.
            assert!(measured.peak_percent.is_none_or(|share| share > 0.0), "{table} {name}: {measured:?}");
            for round in &measured.rounds {
                assert_eq!(round.pace_gflops.is_some(), cfg!(target_arch = "x86_64"), "{table} {name}");
                assert_eq!(round.peak_gflops, round.pace_gflops.filter(|_| has_peak), "{table} {name}");
            }
        }
    }
}

#[test]
fn rounds_of_older_files_are_read() {
    let round: Round = serde_json::from_str(r#"{"seconds": 2.0, "peak_gflops": 364.0}"#).unwrap();
    assert_eq!(round, Round { seconds: 2.0, peak_gflops: Some(364.0), pace_gflops: None });
}

#[test]
fn a_case_with_quantized_weights_has_their_type() {
    let quantization = Some(Quantization::Int8);
    let bench = Bench::new(Options { quantization, ..options() }).unwrap();
    let measured = bench.prepare(Case::Linear { rows: 8, n_in: 64, n_out: 32 }).unwrap().measure(1).unwrap();
    assert_eq!(measured.dtype, "int8");
}

#[test]
fn more_weights_than_memory_are_refused_before_any_is_made() {
    let model = RandomModel { blocks: 1_000_000, layers: 1 };
    let bench = Bench::new(Options { model, ..options() }).unwrap();
    for name in ["block/256", "linear/131072x131072x131072", "conv/131072x64x64", "attention/131072x512x512"]
    {
        let error = bench.prepare(name.parse().unwrap()).unwrap_err();
        assert_eq!(error.code(), "INK-0402", "{name}");
    }
}

/// Bytes by hand: the first operand twice, in bf16.
#[test]
fn kernels_need_what_they_read_and_write() {
    let needed = |name: &str| kernels::needed_bytes(name.parse().unwrap());
    assert_eq!(needed("linear/8x64x32"), 2 * (2 * 8 * 64 + 64 * 32 + 8 * 32));
    assert_eq!(needed("attention/10x2x16"), 2 * 7 * 10 * 2 * 16);
    assert_eq!(needed("conv/16x8x4"), 2 * (2 * 256 * 8 + 9 * 8 * 4 + 256 * 4));
}

#[test]
fn a_machine_is_measured_with_the_sizes_of_a_model() {
    let sizes = Sizes { width: 96, head_dim: 32, channels: 24 };
    let kinds = [options(), Options { quantization: Some(Quantization::Int8), ..options() }];
    let measured = Rates::measure(&kinds, sizes, std::time::Duration::from_millis(20)).unwrap();
    for rates in &measured {
        for rate in [rates.linear, rates.attention, rates.conv, rates.elements] {
            assert!(rate.is_finite() && rate > 0.0, "{rates:?}");
        }
        assert!(rates.processor_share.is_none_or(|share| share > 0.0 && share <= 1.0), "{rates:?}");
    }
    // Of one measurement: weights have no part in them.
    let [stored, int8] = measured[..] else { panic!("{measured:?}") };
    assert_eq!((stored.attention, stored.elements), (int8.attention, int8.elements));
}

#[test]
fn both_clocks_count_work() {
    if cpu::process_seconds().is_none() {
        return;
    }
    let work = || {
        let begun = cpu::process_seconds().unwrap();
        while cpu::process_seconds().unwrap() < begun + 0.02 {}
    };
    assert!(Clock::Processor.time(work).1 > 0.019); // 0.02, rounded
    let nap = || std::thread::sleep(std::time::Duration::from_millis(5));
    assert!(Clock::Wall.time(nap).1 >= 0.005);
}
