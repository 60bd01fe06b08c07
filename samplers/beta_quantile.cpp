#include "samplers/beta_quantile.h"

#include <boost/math/special_functions/beta.hpp>

namespace mgpu {

double beta_quantile(double probability, double alpha, double beta) {
  return boost::math::ibeta_inv(alpha, beta, probability);
}

}  // namespace mgpu
