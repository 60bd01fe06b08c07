#pragma once

#include "samplers/sampler.h"

/// The sampler functions that the registry's rows name, by file. Each one's paper stands at its definition.
namespace mgpu::sample {

// euler.cpp
at::Tensor euler(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor euler_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor euler_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor euler_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// heun.cpp
at::Tensor heun(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor heunpp2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// dpm.cpp
at::Tensor dpm_2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpm_2_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpm_fast(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpm_adaptive(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// dpmpp.cpp
at::Tensor dpmpp_2s_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_2s_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_2m(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_2m_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// dpmpp_sde.cpp
at::Tensor dpmpp_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_2m_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_2m_sde_heun(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor dpmpp_3m_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// multistep.cpp
at::Tensor lms(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor ipndm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor ipndm_v(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor deis(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor gradient_estimation(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor gradient_estimation_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// res_multistep.cpp
at::Tensor res_multistep(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor res_multistep_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor res_multistep_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor res_multistep_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// renoise.cpp
at::Tensor ddpm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor lcm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// er_sde.cpp
at::Tensor er_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// seeds.cpp
at::Tensor seeds_2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor seeds_3(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor exp_heun_2_x0(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor exp_heun_2_x0_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// sa_solver.cpp
at::Tensor sa_solver(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor sa_solver_pece(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// unipc.cpp
at::Tensor uni_pc(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor uni_pc_bh2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

}  // namespace mgpu::sample
