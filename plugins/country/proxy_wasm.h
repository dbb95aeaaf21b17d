/* The part of the proxy-wasm ABI 0.2.1 that a small filter needs, without an SDK and without a C library.
 *
 * Imports are the functions of the host; PROXY_EXPORT marks the callbacks that it looks for. */
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROXY_EXPORT(name) __attribute__((export_name(#name)))
#define PROXY_IMPORT(name) extern __attribute__((import_module("env"), import_name(#name)))

enum { PROXY_OK = 0, PROXY_NOT_FOUND = 1 };
enum { PROXY_LOG_TRACE, PROXY_LOG_DEBUG, PROXY_LOG_INFO, PROXY_LOG_WARN, PROXY_LOG_ERROR, PROXY_LOG_CRITICAL };
enum { PROXY_CONTINUE = 0, PROXY_PAUSE = 1 };
enum { PROXY_MAP_REQUEST_HEADERS = 0, PROXY_MAP_RESPONSE_HEADERS = 2 };
enum { PROXY_BUFFER_PLUGIN_CONFIGURATION = 7 };
enum { PROXY_METRIC_COUNTER = 0, PROXY_METRIC_GAUGE = 1, PROXY_METRIC_HISTOGRAM = 2 };

PROXY_IMPORT(proxy_log) int32_t proxy_log(int32_t level, const char *text, size_t size);
PROXY_IMPORT(proxy_get_buffer_bytes)
int32_t proxy_get_buffer_bytes(int32_t buffer, size_t start, size_t max, char **bytes, size_t *size);
PROXY_IMPORT(proxy_get_header_map_value)
int32_t proxy_get_header_map_value(int32_t map, const char *name, size_t name_size, char **value, size_t *size);
PROXY_IMPORT(proxy_send_local_response)
int32_t proxy_send_local_response(int32_t status, const char *details, size_t details_size, const char *body,
                                  size_t body_size, const char *fields, size_t fields_size, int32_t grpc_status);
PROXY_IMPORT(proxy_define_metric)
int32_t proxy_define_metric(int32_t kind, const char *name, size_t name_size, int32_t *id);
PROXY_IMPORT(proxy_increment_metric) int32_t proxy_increment_metric(int32_t id, int64_t by);

/* The marker of the version. */
PROXY_EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}

/* The bytes of a literal, and how many. */
#define PROXY_TEXT(literal) (literal), (sizeof(literal) - 1)

/* Memory that the host puts its answers into. There is no free(): what one callback got is gone with the next, once
 * proxy_keep() has said what stays. What does not fit is refused, and the host says that it could not answer. */
#ifndef PROXY_ARENA_BYTES
#define PROXY_ARENA_BYTES (64 * 1024)
#endif

static _Alignas(16) char proxy_arena[PROXY_ARENA_BYTES];
static size_t proxy_arena_used, proxy_arena_kept;

PROXY_EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t size) {
    size_t rounded = (size + 15) & ~(size_t)15;
    if (rounded < size || rounded > PROXY_ARENA_BYTES - proxy_arena_used) {
        return NULL;
    }
    void *at = proxy_arena + proxy_arena_used;
    proxy_arena_used += rounded;
    return at;
}

/* Keeps what was given so far for good. */
static inline void proxy_keep(void) { proxy_arena_kept = proxy_arena_used; }

/* First thing in a callback: forgets what the one before was given. */
static inline void proxy_forget(void) { proxy_arena_used = proxy_arena_kept; }

#endif
