#pragma once

namespace mgpu {

/// The quantile of the beta distribution at `probability` in [0, 1]: the inverse regularised incomplete beta function.
/// The only place that sees Boost.Math.
double beta_quantile(double probability, double alpha, double beta);

}  // namespace mgpu
