/* Copyright (C) 2026 anomalib-vmpfd contributors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Selective scan in float32, y_t = <C_t, h_t> with h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t, and its gradients.
 *
 * Everything is contiguous: u, delta, y (P, E, L); A (G, E, N); B, C (P, L, N), where P = batch * G pairs of an image
 * and a group. A call handles the pairs [first, last), so that threads split the pairs and never share an output.
 *
 * Tokens go in chunks of CHUNK: within one, B and C stay in the first-level cache for all channels, and the backward
 * pass runs a chunk again from the state before it, starts (P, chunks, E, N).
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 64
#define MAX_STATES 256
#define INLINE static inline __attribute__((always_inline))

/* exp to 2 ulp without a branch, so that it vectorises. The lower clamp makes underflow about 1e-38; NaN passes. */
INLINE float fast_exp(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.3f ? 88.3f : x;
    const float n = (x * 1.44269504f + magic) - magic;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    union { int32_t i; float f; } power = { ((int32_t)n + 127) << 23 };
    return p * power.f;
}

/* Fetch the first count numbers of a row: rows lie a page or more apart in long sequences, where no hardware looks
 * ahead. */
INLINE void fetch(const float *row, ptrdiff_t count)
{
#ifdef __GNUC__
    for (ptrdiff_t i = 0; i < count; i += 16)
        __builtin_prefetch(row + i);
#else
    (void)row, (void)count;
#endif
}

INLINE void forward(const float *u, const float *delta, const float *A, const float *B, const float *C, float *y,
                    float *starts, float *state, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, const int N, ptrdiff_t first,
                    ptrdiff_t last)
{
    const ptrdiff_t chunks = (L + CHUNK - 1) / CHUNK;
    for (ptrdiff_t p = first; p < last; ++p) {
        const float *A_p = A + (p % G) * E * N, *B_p = B + p * L * N, *C_p = C + p * L * N;
        memset(state, 0, sizeof(float) * E * N);
        for (ptrdiff_t chunk = 0; chunk < chunks; ++chunk) {
            const ptrdiff_t t0 = chunk * CHUNK, t1 = t0 + CHUNK < L ? t0 + CHUNK : L;
            if (starts)
                memcpy(starts + (p * chunks + chunk) * E * N, state, sizeof(float) * E * N);
            for (ptrdiff_t e = 0; e < E; ++e) {
                const float *u_e = u + (p * E + e) * L, *delta_e = delta + (p * E + e) * L, *A_e = A_p + e * N;
                float *y_e = y + (p * E + e) * L;
                float h[MAX_STATES];
                if (e + 1 < E) {
                    fetch(u_e + L + t0, t1 - t0);
                    fetch(delta_e + L + t0, t1 - t0);
                    fetch(y_e + L + t0, t1 - t0);
                }
                memcpy(h, state + e * N, sizeof(float) * N);
                for (ptrdiff_t t = t0; t < t1; ++t) {
                    const float step = delta_e[t], drive = step * u_e[t];
                    const float *B_t = B_p + t * N, *C_t = C_p + t * N;
                    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                    for (int n = 0; n < N; ++n) {
                        h[n] = fast_exp(step * A_e[n]) * h[n] + drive * B_t[n];
                        sum += C_t[n] * h[n];
                    }
                    y_e[t] = sum;
                }
                memcpy(state + e * N, h, sizeof(float) * N);
            }
        }
    }
}

/* grad_A is (P, E, N), one for each pair; the caller sums over the batch. */
INLINE void backward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                     const float *starts, const float *grad_y, float *grad_u, float *grad_delta, float *grad_A,
                     float *grad_B, float *grad_C, float *later, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, const int N,
                     ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t chunks = (L + CHUNK - 1) / CHUNK;
    for (ptrdiff_t p = first; p < last; ++p) {
        const float *A_p = A + (p % G) * E * N, *B_p = B + p * L * N, *C_p = C + p * L * N;
        float *grad_A_p = grad_A + p * E * N, *grad_B_p = grad_B + p * L * N, *grad_C_p = grad_C + p * L * N;
        memset(later, 0, sizeof(float) * E * N); /* a_{t+1} g_{t+1} from the chunk after this one */
        memset(grad_A_p, 0, sizeof(float) * E * N);
        memset(grad_B_p, 0, sizeof(float) * L * N);
        memset(grad_C_p, 0, sizeof(float) * L * N);
        for (ptrdiff_t chunk = chunks - 1; chunk >= 0; --chunk) {
            const ptrdiff_t t0 = chunk * CHUNK, t1 = t0 + CHUNK < L ? t0 + CHUNK : L;
            for (ptrdiff_t e = 0; e < E; ++e) {
                const ptrdiff_t row = (p * E + e) * L;
                const float *A_e = A_p + e * N;
                float decay[CHUNK * MAX_STATES], h[(CHUNK + 1) * MAX_STATES];
                float g[MAX_STATES], rate_grad[MAX_STATES];
                if (e + 1 < E) {
                    const ptrdiff_t next = row + L + t0;
                    fetch(u + next, t1 - t0);
                    fetch(delta + next, t1 - t0);
                    fetch(grad_y + next, t1 - t0);
                    fetch(grad_u + next, t1 - t0);
                    fetch(grad_delta + next, t1 - t0);
                }
                memcpy(h, starts + ((p * chunks + chunk) * E + e) * N, sizeof(float) * N);
                for (ptrdiff_t t = t0; t < t1; ++t) {
                    const float step = delta[row + t], drive = step * u[row + t];
                    const float *B_t = B_p + t * N, *before = h + (t - t0) * N;
                    float *a_t = decay + (t - t0) * N, *h_t = h + (t - t0 + 1) * N;
#pragma omp simd
                    for (int n = 0; n < N; ++n) {
                        a_t[n] = fast_exp(step * A_e[n]);
                        h_t[n] = a_t[n] * before[n] + drive * B_t[n];
                    }
                }
                memcpy(g, later + e * N, sizeof(float) * N);
                memcpy(rate_grad, grad_A_p + e * N, sizeof(float) * N);
                for (ptrdiff_t t = t1 - 1; t >= t0; --t) {
                    const float step = delta[row + t], u_t = u[row + t], drive = step * u_t, gy = grad_y[row + t];
                    const float *B_t = B_p + t * N, *C_t = C_p + t * N;
                    const float *a_t = decay + (t - t0) * N, *before = h + (t - t0) * N, *h_t = before + N;
                    float *grad_B_t = grad_B_p + t * N, *grad_C_t = grad_C_p + t * N;
                    float through_input = 0.0f, through_decay = 0.0f;
#pragma omp simd reduction(+ : through_input, through_decay)
                    for (int n = 0; n < N; ++n) {
                        const float g_n = g[n] + gy * C_t[n];
                        const float back = a_t[n] * g_n, q = back * before[n];
                        grad_C_t[n] += gy * h_t[n];
                        grad_B_t[n] += drive * g_n;
                        through_input += B_t[n] * g_n;
                        through_decay += q * A_e[n];
                        rate_grad[n] += q * step;
                        g[n] = back;
                    }
                    grad_u[row + t] = step * through_input;
                    grad_delta[row + t] = u_t * through_input + through_decay;
                }
                memcpy(later + e * N, g, sizeof(float) * N);
                memcpy(grad_A_p + e * N, rate_grad, sizeof(float) * N);
            }
        }
    }
}

/* N = 16, Mamba's default, is compiled apart: its inner loops are one or two vectors. */
void scan_forward(const float *u, const float *delta, const float *A, const float *B, const float *C, float *y,
                  float *starts, float *state, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, ptrdiff_t N, ptrdiff_t first,
                  ptrdiff_t last)
{
    if (N == 16)
        forward(u, delta, A, B, C, y, starts, state, G, E, L, 16, first, last);
    else
        forward(u, delta, A, B, C, y, starts, state, G, E, L, (int)N, first, last);
}

void scan_backward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                   const float *starts, const float *grad_y, float *grad_u, float *grad_delta, float *grad_A,
                   float *grad_B, float *grad_C, float *later, ptrdiff_t G, ptrdiff_t E, ptrdiff_t L, ptrdiff_t N,
                   ptrdiff_t first, ptrdiff_t last)
{
    if (N == 16)
        backward(u, delta, A, B, C, starts, grad_y, grad_u, grad_delta, grad_A, grad_B, grad_C, later, G, E, L, 16,
                 first, last);
    else
        backward(u, delta, A, B, C, starts, grad_y, grad_u, grad_delta, grad_A, grad_B, grad_C, later, G, E, L,
                 (int)N, first, last);
}
