/* Lets requests in by the country that a CDN says they come from.
 *
 * The CDN writes the country into a request header (Cloudflare: CF-IPCountry, CloudFront: CloudFront-Viewer-Country); this
 * filter compares it with a list. No database of addresses. It is worth as much as the header: clients must not be able to
 * reach the gateway beside the CDN, or they write the header themselves.
 *
 * Configuration, as JSON:
 *
 *   {"allow": ["DE", "AT", "US-CA"], "header": "cf-ipcountry", "region_header": "cf-region-code", "unknown": "deny"}
 *
 * or only the list: DE, AT, US-CA
 *
 *   allow, deny    one of them: ISO 3166 countries (DE), or regions of one (US-CA), which need `region_header`
 *   header         where the country stands; default cf-ipcountry
 *   region_header  where the region stands, without the country; none by default
 *   unknown        what becomes of requests without a country (none, XX, or T1, which is Tor), or without the
 *                  region that would decide: deny (default) or allow */

#include "proxy_wasm.h"

enum { CODES_MAX = 512, CODE_BYTES = 6, NAME_BYTES_MAX = 64 };

typedef struct {
    const char *at;
    size_t size;
} Text;

static struct {
    /* US-CA as `USCA  `: always CODE_BYTES, filled up with spaces. */
    char codes[CODES_MAX][CODE_BYTES];
    size_t count;
    bool is_deny;
    bool is_set;
    bool has_regions;
    bool allows_unknown;
    Text header;
    Text region_header;
} settings;

static int32_t counter_allowed, counter_denied, counter_unknown;

/* ---- the configuration ---- */

typedef struct {
    const char *at, *end;
} Reader;

static bool fail(const char *text, size_t size) {
    proxy_log(PROXY_LOG_ERROR, text, size);
    return false;
}
#define FAIL(literal) fail(PROXY_TEXT("country: " literal))

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }
static bool is_letter(char c) { return upper(c) >= 'A' && upper(c) <= 'Z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void skip_space(Reader *in) {
    while (in->at < in->end && is_space(*in->at)) in->at++;
}

/* Takes `c`, if that is what comes next. */
static bool take(Reader *in, char c) {
    skip_space(in);
    if (in->at == in->end || *in->at != c) return false;
    in->at++;
    return true;
}

/* A string without escapes: nothing that is configured here needs one. */
static bool string(Reader *in, Text *text) {
    if (!take(in, '"')) return false;
    text->at = in->at;
    while (in->at < in->end && *in->at != '"') {
        if (*in->at == '\\' || (unsigned char)*in->at < 0x20) return false;
        in->at++;
    }
    text->size = (size_t)(in->at - text->at);
    return take(in, '"');
}

static bool is(Text text, const char *other) {
    size_t i = 0;
    while (i < text.size && other[i] != 0 && text.at[i] == other[i]) i++;
    return i == text.size && other[i] == 0;
}

/* Two letters, and a region of one to three letters and digits behind a `-`. */
static bool as_code(Text country, Text region, char code[CODE_BYTES]) {
    if (country.size != 2 || !is_letter(country.at[0]) || !is_letter(country.at[1]) || region.size > 3) return false;
    for (size_t i = 0; i < CODE_BYTES; i++) code[i] = ' ';
    code[0] = upper(country.at[0]);
    code[1] = upper(country.at[1]);
    for (size_t i = 0; i < region.size; i++) {
        if (!is_letter(region.at[i]) && !is_digit(region.at[i])) return false;
        code[2 + i] = upper(region.at[i]);
    }
    return true;
}

static bool add(Text written) {
    Text country = written, region = {written.at, 0};
    if (written.size > 2) {
        if (written.at[2] != '-' || written.size == 3) return FAIL("a code is DE, or US-CA for a region");
        country.size = 2;
        region = (Text){written.at + 3, written.size - 3};
        settings.has_regions = true;
    }
    if (settings.count == CODES_MAX) return FAIL("more than 512 codes");
    if (!as_code(country, region, settings.codes[settings.count])) return FAIL("a code is DE, or US-CA for a region");
    settings.count++;
    return true;
}

static bool list(Reader *in) {
    if (settings.is_set) return FAIL("either `allow` or `deny`, once");
    settings.is_set = true;
    if (!take(in, '[')) return FAIL("`allow` and `deny` are lists of codes");
    do {
        Text code;
        if (!string(in, &code)) return FAIL("`allow` and `deny` are lists of codes");
        if (!add(code)) return false;
    } while (take(in, ','));
    return take(in, ']') || FAIL("a list of codes ends with ]");
}

static bool header(Reader *in, Text *name) {
    if (!string(in, name) || name->size == 0 || name->size > NAME_BYTES_MAX) return FAIL("a header has a name");
    for (size_t i = 0; i < name->size; i++) {
        char c = name->at[i];
        if (!is_letter(c) && !is_digit(c) && c != '-' && c != '_') return FAIL("a header has a name");
    }
    return true;
}

static bool member(Reader *in) {
    Text key, value;
    if (!string(in, &key) || !take(in, ':')) return FAIL("the configuration is a JSON object");
    if (is(key, "allow")) return list(in);
    if (is(key, "deny")) {
        settings.is_deny = true;
        return list(in);
    }
    if (is(key, "header")) return header(in, &settings.header);
    if (is(key, "region_header")) return header(in, &settings.region_header);
    if (is(key, "unknown")) {
        if (!string(in, &value)) return FAIL("`unknown` is allow or deny");
        settings.allows_unknown = is(value, "allow");
        return settings.allows_unknown || is(value, "deny") || FAIL("`unknown` is allow or deny");
    }
    return FAIL("an unknown key; there are allow, deny, header, region_header, unknown");
}

static bool object(Reader *in) {
    do {
        if (!member(in)) return false;
    } while (take(in, ','));
    if (!take(in, '}')) return FAIL("the configuration is a JSON object");
    skip_space(in);
    return in->at == in->end || FAIL("something stands behind the configuration");
}

/* DE, AT US-CA */
static bool plain(Reader *in) {
    settings.is_set = true;
    for (;;) {
        while (in->at < in->end && (is_space(*in->at) || *in->at == ',')) in->at++;
        if (in->at == in->end) return true;
        Text code = {in->at, 0};
        while (in->at < in->end && !is_space(*in->at) && *in->at != ',') in->at++;
        code.size = (size_t)(in->at - code.at);
        if (!add(code)) return false;
    }
}

static bool configure(char *text, size_t size) {
    settings.header = (Text){PROXY_TEXT("cf-ipcountry")};
    Reader in = {text, text + size};
    bool is_read = take(&in, '{') ? object(&in) : plain(&in);
    if (!is_read) return false;
    if (settings.count == 0) return FAIL("no country is named: give `allow` or `deny`");
    if (settings.has_regions && settings.region_header.size == 0) return FAIL("regions need `region_header`");
    return true;
}

PROXY_EXPORT(proxy_on_configure) int32_t proxy_on_configure(int32_t context, size_t size) {
    (void)context;
    char *text = NULL;
    size_t length = 0;
    if (size == 0) return FAIL("no configuration: name the countries");
    if (proxy_get_buffer_bytes(PROXY_BUFFER_PLUGIN_CONFIGURATION, 0, size, &text, &length) != PROXY_OK) {
        return FAIL("the configuration is too large");
    }
    /* Names of headers point into it. */
    proxy_keep();
    proxy_define_metric(PROXY_METRIC_COUNTER, PROXY_TEXT("country_allowed"), &counter_allowed);
    proxy_define_metric(PROXY_METRIC_COUNTER, PROXY_TEXT("country_denied"), &counter_denied);
    proxy_define_metric(PROXY_METRIC_COUNTER, PROXY_TEXT("country_unknown"), &counter_unknown);
    return configure(text, length);
}

/* ---- requests ---- */

static Text value_of(Text name) {
    char *value = NULL;
    size_t size = 0;
    if (name.size == 0) return (Text){"", 0};
    if (proxy_get_header_map_value(PROXY_MAP_REQUEST_HEADERS, name.at, name.size, &value, &size) != PROXY_OK) size = 0;
    return (Text){value, size};
}

static bool is_listed(const char code[CODE_BYTES]) {
    for (size_t i = 0; i < settings.count; i++) {
        const char *own = settings.codes[i];
        bool same_country = own[0] == code[0] && own[1] == code[1];
        bool whole = own[2] == ' ';
        if (same_country && (whole || (own[2] == code[2] && own[3] == code[3] && own[4] == code[4]))) return true;
    }
    return false;
}

/* Whether only the region decides. */
static bool needs_region(const char code[CODE_BYTES]) {
    for (size_t i = 0; i < settings.count; i++) {
        const char *own = settings.codes[i];
        if (own[0] == code[0] && own[1] == code[1] && own[2] != ' ') return code[2] == ' ';
    }
    return false;
}

static int32_t deny(void) {
    static const char body[] = "{\"error\":{\"code\":\"COUNTRY_DENIED\",\"message\":\"not available in your country\"}}\n";
    /* One field: how many there are, the sizes of name and value, then both, each with a zero behind it. */
    static const char fields[] = "\1\0\0\0" "\14\0\0\0" "\20\0\0\0" "content-type\0" "application/json";
    proxy_increment_metric(counter_denied, 1);
    proxy_send_local_response(403, PROXY_TEXT("country_denied"), PROXY_TEXT(body), fields, sizeof fields, -1);
    return PROXY_PAUSE;
}

static int32_t allow(void) {
    proxy_increment_metric(counter_allowed, 1);
    return PROXY_CONTINUE;
}

PROXY_EXPORT(proxy_on_request_headers)
int32_t proxy_on_request_headers(int32_t context, int32_t count, int32_t ends) {
    (void)context, (void)count, (void)ends;
    proxy_forget();
    char code[CODE_BYTES];
    Text country = value_of(settings.header);
    bool is_known = as_code(country, (Text){"", 0}, code) && !is((Text){code, 2}, "XX");
    if (is_known && settings.has_regions) {
        Text region = value_of(settings.region_header);
        if (!as_code(country, region, code)) as_code(country, (Text){"", 0}, code);
        is_known = is_listed(code) || !needs_region(code);
    }
    if (!is_known) {
        proxy_increment_metric(counter_unknown, 1);
        return settings.allows_unknown ? allow() : deny();
    }
    return is_listed(code) != settings.is_deny ? allow() : deny();
}
