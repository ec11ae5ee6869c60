/* Copyright (C) 2026 anomalib-vmpfd contributors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Selective scan in float32 and its gradients:
 *
 *   s_t = softplus(delta_t + bias),  h_t = exp(s_t A) h_{t-1} + s_t u_t B_t,  y_t = <C_t, h_t> + D u_t
 *
 * Everything is contiguous, with the channels innermost: u, delta, y (batch, L, G, E); B, C (batch, L, G, N). What
 * belongs to channels comes in blocks of W, filled up with zeros: A (G, blocks, N, W), times log2(e); D, bias
 * (G, blocks, W). A vector then holds channels: nothing is summed across it but the gradients of B and C, once a chunk.
 *
 * A call handles the pairs of an image and a group [first, last) of batch * G, so that threads never share an output.
 * Tokens go in chunks: the backward pass runs a chunk again from the states before it, starts
 * (pairs, chunks, blocks, N, W).
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 16
#define W 16
#define INLINE static inline __attribute__((always_inline))
#define LOG2E 1.44269504f
#define LN2 0.693147181f

/* Not constants to the compiler, which would compute both ends apart and blend instead of clamping. */
static volatile float lowest_power = -125.0f, highest_power = 127.0f;

/* 2^x to 2 ulp without a branch, so that it vectorises. The clamps make underflow about 1e-38; NaN passes. */
INLINE float power_of_2(float x, float lowest, float highest)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, left in the lowest bits */
    union { uint32_t i; float f; } whole, result;
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    whole.f = x + magic;
    const float r = x - (whole.f - magic);
    float p = 1.3264726899e-3f; /* minimax on [-0.5, 0.5] */
    p = p * r + 9.6715126606e-3f;
    p = p * r + 5.5507337442e-2f;
    p = p * r + 2.4022242085e-1f;
    p = p * r + 6.9314697760e-1f;
    result.f = p * r + 1.0f;
    result.i += whole.i << 23;
    return result.f;
}

/* log(1 + exp(x)), exact to a few ulp of itself also where it is tiny; *slope is its derivative. */
INLINE float softplus(float x, float lowest, float *slope)
{
    const float z = power_of_2((x < 0.0f ? x : -x) * LOG2E, lowest, 0.0f), above = x > 0.0f ? x : 0.0f;
    const float s = z / (2.0f + z), q = s * s; /* log(1 + z) = 2 artanh(s), s at most 1/3 */
    float p = 1.0f / 15.0f;
    p = p * q + 1.0f / 13.0f;
    p = p * q + 1.0f / 11.0f;
    p = p * q + 1.0f / 9.0f;
    p = p * q + 1.0f / 7.0f;
    p = p * q + 1.0f / 5.0f;
    p = p * q + 1.0f / 3.0f;
    p = p * q + 1.0f;
    *slope = (x < 0.0f ? z : 1.0f) / (1.0f + z);
    return above + 2.0f * s * p;
}

/* Up to W numbers of a row, the rest zero. */
INLINE void load(float *to, const float *from, ptrdiff_t width)
{
    if (width < W)
        memset(to, 0, sizeof(float) * W);
    memcpy(to, from, sizeof(float) * (width < W ? width : W));
}

INLINE void store(float *to, const float *from, ptrdiff_t width)
{
    memcpy(to, from, sizeof(float) * (width < W ? width : W));
}

/* The step sizes of a block and their slopes by delta. */
INLINE void steps(float *step, float *slope, const float *bias, int with_softplus)
{
    const float lowest = lowest_power;
#pragma omp simd
    for (int w = 0; w < W; ++w) {
        float s = 1.0f;
        const float x = step[w] + bias[w];
        step[w] = with_softplus ? softplus(x, lowest, &s) : x;
        slope[w] = s;
    }
}

INLINE void forward(const float *u, const float *delta, const float *A, const float *B, const float *C, const float *D,
                    const float *bias, float *y, float *starts, float *state, int with_softplus, ptrdiff_t G,
                    ptrdiff_t E, ptrdiff_t L, const int N, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t chunks = (L + CHUNK - 1) / CHUNK, blocks = (E + W - 1) / W, size = (ptrdiff_t)N * W;
    const float lowest = lowest_power, highest = highest_power;
    for (ptrdiff_t pair = first; pair < last; ++pair) {
        const ptrdiff_t group = pair % G, token = pair / G * L; /* the first token of the image */
        memset(state, 0, sizeof(float) * blocks * size);
        for (ptrdiff_t t0 = 0; t0 < L; t0 += CHUNK) {
            const ptrdiff_t t1 = t0 + CHUNK < L ? t0 + CHUNK : L;
            if (starts)
                memcpy(starts + (pair * chunks + t0 / CHUNK) * blocks * size, state, sizeof(float) * blocks * size);
            for (ptrdiff_t block = 0; block < blocks; ++block) {
                const ptrdiff_t width = E - block * W, channels = group * blocks + block;
                const float *restrict A_b = A + channels * size;
                float *restrict h = state + block * size;
                for (ptrdiff_t t = t0; t < t1; ++t) {
                    const ptrdiff_t row = (token + t) * G + group, at = row * E + block * W;
                    const float *restrict B_t = B + row * N, *restrict C_t = C + row * N;
                    float input[W], step[W], slope[W], drive[W], sum[W];
                    load(input, u + at, width);
                    load(step, delta + at, width);
                    steps(step, slope, bias + channels * W, with_softplus);
#pragma omp simd
                    for (int w = 0; w < W; ++w) {
                        drive[w] = step[w] * input[w];
                        sum[w] = D[channels * W + w] * input[w];
                    }
                    for (int n = 0; n < N; ++n) {
#pragma omp simd
                        for (int w = 0; w < W; ++w) {
                            const float a = power_of_2(step[w] * A_b[n * W + w], lowest, highest);
                            h[n * W + w] = a * h[n * W + w] + drive[w] * B_t[n];
                            sum[w] += C_t[n] * h[n * W + w];
                        }
                    }
                    store(y + at, sum, width);
                }
            }
        }
    }
}

/* grad_A (batch, G, blocks, N, W), by A as it was given, and grad_D, grad_bias (batch, G, blocks, W): one for each
 * pair, the caller sums over the batch. scratch holds blocks * N * W + 4 * (CHUNK + 1) * N * W numbers. */
INLINE void backward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                     const float *D, const float *bias, const float *starts, const float *grad_y, float *grad_u,
                     float *grad_delta, float *grad_A, float *grad_B, float *grad_C, float *grad_D, float *grad_bias,
                     float *scratch, int with_softplus, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, const int N,
                     ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t chunks = (L + CHUNK - 1) / CHUNK, blocks = (E + W - 1) / W, size = (ptrdiff_t)N * W;
    const float lowest = lowest_power, highest = highest_power;
    float *later = scratch; /* a_{t+1} g_{t+1} from the chunk after this one */
    float *restrict decay = later + blocks * size, *restrict states = decay + (CHUNK + 1) * size;
    float *restrict sums_B = states + (CHUNK + 1) * size, *restrict sums_C = sums_B + (CHUNK + 1) * size;
    for (ptrdiff_t pair = first; pair < last; ++pair) {
        const ptrdiff_t group = pair % G, token = pair / G * L;
        memset(later, 0, sizeof(float) * blocks * size);
        memset(grad_A + pair * blocks * size, 0, sizeof(float) * blocks * size);
        memset(grad_D + pair * blocks * W, 0, sizeof(float) * blocks * W);
        memset(grad_bias + pair * blocks * W, 0, sizeof(float) * blocks * W);
        for (ptrdiff_t chunk = chunks - 1; chunk >= 0; --chunk) {
            const ptrdiff_t t0 = chunk * CHUNK, t1 = t0 + CHUNK < L ? t0 + CHUNK : L;
            memset(sums_B, 0, sizeof(float) * CHUNK * size);
            memset(sums_C, 0, sizeof(float) * CHUNK * size);
            for (ptrdiff_t block = 0; block < blocks; ++block) {
                const ptrdiff_t width = E - block * W, channels = group * blocks + block;
                const float *restrict A_b = A + channels * size;
                float *restrict g = later + block * size, *restrict rates = grad_A + (pair * blocks + block) * size;
                float *restrict skip = grad_D + (pair * blocks + block) * W;
                float *restrict offset = grad_bias + (pair * blocks + block) * W;
                float input[CHUNK][W], step[CHUNK][W], slope[CHUNK][W];
                memcpy(states, starts + ((pair * chunks + chunk) * blocks + block) * size, sizeof(float) * size);
                for (ptrdiff_t t = t0, i = 0; t < t1; ++t, ++i) {
                    const ptrdiff_t row = (token + t) * G + group, at = row * E + block * W;
                    const float *restrict B_t = B + row * N, *restrict before = states + i * size;
                    float *restrict a = decay + i * size, *restrict h = states + (i + 1) * size, drive[W];
                    load(input[i], u + at, width);
                    load(step[i], delta + at, width);
                    steps(step[i], slope[i], bias + channels * W, with_softplus);
#pragma omp simd
                    for (int w = 0; w < W; ++w)
                        drive[w] = step[i][w] * input[i][w];
                    for (int n = 0; n < N; ++n) {
#pragma omp simd
                        for (int w = 0; w < W; ++w) {
                            a[n * W + w] = power_of_2(step[i][w] * A_b[n * W + w], lowest, highest);
                            h[n * W + w] = a[n * W + w] * before[n * W + w] + drive[w] * B_t[n];
                        }
                    }
                }
                for (ptrdiff_t t = t1 - 1, i = t1 - 1 - t0; t >= t0; --t, --i) {
                    const ptrdiff_t row = (token + t) * G + group, at = row * E + block * W;
                    const float *restrict B_t = B + row * N, *restrict C_t = C + row * N;
                    const float *restrict a = decay + i * size, *restrict before = states + i * size;
                    const float *restrict h = before + size;
                    float *restrict sum_B = sums_B + i * size, *restrict sum_C = sums_C + i * size;
                    float gy[W], drive[W], through_input[W], through_decay[W];
                    load(gy, grad_y + at, width);
#pragma omp simd
                    for (int w = 0; w < W; ++w) {
                        drive[w] = step[i][w] * input[i][w];
                        through_input[w] = through_decay[w] = 0.0f;
                    }
                    for (int n = 0; n < N; ++n) {
#pragma omp simd
                        for (int w = 0; w < W; ++w) {
                            const int k = n * W + w;
                            const float g_n = g[k] + gy[w] * C_t[n], back = a[k] * g_n, q = back * before[k];
                            sum_C[k] += gy[w] * h[k];
                            sum_B[k] += drive[w] * g_n;
                            through_input[w] += B_t[n] * g_n;
                            through_decay[w] += q * A_b[k];
                            rates[k] += q * step[i][w];
                            g[k] = back;
                        }
                    }
#pragma omp simd
                    for (int w = 0; w < W; ++w) {
                        const float by_step = input[i][w] * through_input[w] + LN2 * through_decay[w];
                        skip[w] += gy[w] * input[i][w];
                        through_input[w] = step[i][w] * through_input[w] + D[channels * W + w] * gy[w];
                        through_decay[w] = by_step * slope[i][w];
                        offset[w] += through_decay[w];
                    }
                    store(grad_u + at, through_input, width);
                    store(grad_delta + at, through_decay, width);
                }
            }
            for (ptrdiff_t t = t0; t < t1; ++t) {
                const ptrdiff_t row = ((token + t) * G + group) * N;
                const float *sum_B = sums_B + (t - t0) * size, *sum_C = sums_C + (t - t0) * size;
                for (int n = 0; n < N; ++n) {
                    float total_B = 0.0f, total_C = 0.0f;
#pragma omp simd reduction(+ : total_B, total_C)
                    for (int w = 0; w < W; ++w) {
                        total_B += sum_B[n * W + w];
                        total_C += sum_C[n * W + w];
                    }
                    grad_B[row + n] = total_B;
                    grad_C[row + n] = total_C;
                }
            }
        }
    }
}

/* N = 16, Mamba's default, is compiled apart: its loops are unrolled. */
void scan_forward(const float *u, const float *delta, const float *A, const float *B, const float *C, const float *D,
                  const float *bias, float *y, float *starts, float *scratch, ptrdiff_t with_softplus, ptrdiff_t G,
                  ptrdiff_t E, ptrdiff_t L, ptrdiff_t N, ptrdiff_t first, ptrdiff_t last)
{
    if (N == 16)
        forward(u, delta, A, B, C, D, bias, y, starts, scratch, (int)with_softplus, G, E, L, 16, first, last);
    else
        forward(u, delta, A, B, C, D, bias, y, starts, scratch, (int)with_softplus, G, E, L, (int)N, first, last);
}

void scan_backward(const float *u, const float *delta, const float *A, const float *B, const float *C, const float *D,
                   const float *bias, const float *starts, const float *grad_y, float *grad_u, float *grad_delta,
                   float *grad_A, float *grad_B, float *grad_C, float *grad_D, float *grad_bias, float *scratch,
                   ptrdiff_t with_softplus, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, ptrdiff_t N, ptrdiff_t first,
                   ptrdiff_t last)
{
    if (N == 16)
        backward(u, delta, A, B, C, D, bias, starts, grad_y, grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D,
                 grad_bias, scratch, (int)with_softplus, G, E, L, 16, first, last);
    else
        backward(u, delta, A, B, C, D, bias, starts, grad_y, grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D,
                 grad_bias, scratch, (int)with_softplus, G, E, L, (int)N, first, last);
}
