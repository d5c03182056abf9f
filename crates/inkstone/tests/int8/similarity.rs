//! How alike two vectors or pictures are.

use inkstone::Pixels;

/// The cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    assert_eq!(a.len(), b.len());
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Side of the window.
const WINDOW: usize = 11;
/// Standard deviation of its weights in pixels.
const DEVIATION: f64 = 1.5;

/// Structural similarity, the mean over all places of the window that lie in the picture and over the three colours.
///
/// Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
/// IEEE Transactions on Image Processing 13 (2004), with its constants: 11x11 Gaussian window of deviation 1.5, K1 0.01,
/// K2 0.03.
pub(crate) fn ssim(a: &Pixels, b: &Pixels) -> f64 {
    assert_eq!((a.width_px, a.height_px), (b.width_px, b.height_px));
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let channel = |p: &Pixels, c: usize| p.rgb.iter().skip(c).step_by(3).map(|v| f64::from(*v)).collect();
    let (mut sum, mut places) = (0.0, 0);
    for c in 0..3 {
        let (x, y): (Vec<f64>, Vec<f64>) = (channel(a, c), channel(b, c));
        let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<f64>>();
        let mean = |v: &[f64]| blurred(v, a.width_px);
        let (mx, my) = (mean(&x), mean(&y));
        let (xx, yy, xy) = (mean(&product(&x, &x)), mean(&product(&y, &y)), mean(&product(&x, &y)));
        for i in 0..mx.len() {
            let (vx, vy, cov) = (xx[i] - mx[i] * mx[i], yy[i] - my[i] * my[i], xy[i] - mx[i] * my[i]);
            sum += (2.0 * mx[i] * my[i] + c1) * (2.0 * cov + c2)
                / ((mx[i] * mx[i] + my[i] * my[i] + c1) * (vx + vy + c2));
        }
        places += mx.len();
    }
    sum / count(places)
}

/// Weighted means over the window, at all places where it lies in the picture.
fn blurred(values: &[f64], width: usize) -> Vec<f64> {
    let middle = count(WINDOW / 2);
    let weight = |i: usize| (-(count(i) - middle).powi(2) / (2.0 * DEVIATION * DEVIATION)).exp();
    let total: f64 = (0..WINDOW).map(weight).sum();
    let mean = |at: &dyn Fn(usize) -> f64| (0..WINDOW).map(|i| weight(i) / total * at(i)).sum::<f64>();
    let (height, left) = (values.len() / width, width + 1 - WINDOW);
    let rows: Vec<f64> =
        (0..height * left).map(|i| mean(&|k| values[i / left * width + i % left + k])).collect();
    (0..(height + 1 - WINDOW) * left).map(|i| mean(&|k| rows[i + k * left])).collect()
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

#[test]
fn similarity_of_known_pictures() {
    let flat = |v: u8| Pixels { width_px: 16, height_px: 12, rgb: vec![v; 16 * 12 * 3] };
    let stripes = |low: u8, high: u8| {
        let rgb = (0..16 * 12 * 3).map(|i| if i / 3 % 2 == 0 { low } else { high }).collect();
        Pixels { width_px: 16, height_px: 12, rgb }
    };
    assert!((ssim(&flat(80), &flat(80)) - 1.0).abs() < 1e-12);
    // Without structure only the means count: (2 m n + c1) / (m^2 + n^2 + c1).
    let c1 = 2.55f64.powi(2);
    let want = (2.0 * 100.0 * 150.0 + c1) / (100.0f64.powi(2) + 150.0f64.powi(2) + c1);
    assert!((ssim(&flat(100), &flat(150)) - want).abs() < 1e-9);
    // Opposite stripes have a negative covariance.
    assert!(ssim(&stripes(50, 200), &stripes(200, 50)) < -0.9);
    // All values off by one.
    assert!((crate::drawing::psnr_db(&flat(7), &flat(8)) - 48.130_803_608_679_1).abs() < 1e-9);
}
