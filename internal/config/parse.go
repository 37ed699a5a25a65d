package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The parse functions read one value. Their errors say what is wrong with it
// and never quote it: it may be a secret.

func parseAddr(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("it is not host:port (an IPv6 host needs brackets)")
	}
	if err := checkPort(port); err != nil {
		return "", err
	}
	if host != "" && !validHost(host) {
		return "", errors.New("the host is no IP address and no host name")
	}
	return text, nil
}

func parseAdminAddr(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return parseAddr(text)
}

func checkPort(port string) error {
	if port == "" || strings.Trim(port, "0123456789") != "" {
		return errors.New("the port is not a number")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port is over 65535")
	}
	return nil
}

// validHost reports whether a host is an IP address or a name of the usual
// characters. Names that end in a number are mistyped addresses.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, r := range label {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", r) {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().WithZone("").IsLoopback()
}

// parseToken reads a secret of at least min characters that can stand in a
// header.
func parseToken(min int) func(string) (string, error) {
	return func(text string) (string, error) {
		if !printable(text) {
			return "", errors.New("it has a space, or a character that is not printable ASCII")
		}
		if len(text) < min {
			return "", errors.New("it is too short")
		}
		return text, nil
	}
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func parseKeys(text string) ([]string, error) {
	keys := splitList(text)
	at := make(map[string]int, len(keys))
	for i, key := range keys {
		if first, seen := at[key]; seen && key != "" {
			return nil, fmt.Errorf("key %d is the same as key %d", i+1, first)
		}
		at[key] = i + 1
		switch {
		case key == "":
			return nil, fmt.Errorf("key %d is empty", i+1)
		case !printable(key):
			return nil, fmt.Errorf("key %d has a space, or a character that is not printable ASCII", i+1)
		case len(key) < 8:
			return nil, fmt.Errorf("key %d is too short", i+1)
		}
	}
	return keys, nil
}

func splitList(text string) []string {
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

func parseBaseURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("it is not a URL") // the parser's own error quotes it
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("its scheme is not http or https")
	case u.Hostname() == "":
		return "", errors.New("it has no host")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", errors.New("it has a query or a fragment")
	}
	if port := u.Port(); port != "" {
		if err := checkPort(port); err != nil {
			return "", err
		}
	}
	return strings.TrimRight(text, "/"), nil
}

// parseName reads a name that is passed on as it is.
func parseName(text string) (string, error) {
	if !printable(text) {
		return "", errors.New("it has a space, or a character that is not printable ASCII")
	}
	if len(text) > 256 {
		return "", errors.New("it is over 256 characters")
	}
	return text, nil
}

func parseStore(text string) (string, error) {
	switch text {
	case StoreDisk, StoreMemory, StoreRedis:
		return text, nil
	default:
		return "", errors.New("there is no such store")
	}
}

func parseDir(text string) (string, error) {
	if text == "~" || strings.HasPrefix(text, "~/") {
		return "", errors.New("only a shell knows what ~ is")
	}
	return text, nil
}

// parseDiskSync reports whether every write waits for the disk.
func parseDiskSync(text string) (bool, error) {
	switch text {
	case "os", "fsync":
		return text == "fsync", nil
	default:
		return false, errors.New("it is neither of the two")
	}
}

// parseRedisURL checks what every client of Redis agrees on; the query is for
// the one that is used.
func parseRedisURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("it is not a URL (in a password, special characters are written as %XX)") // the parser's own error quotes it
	}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix":
		return "", errors.New("its scheme is not redis, rediss or unix")
	case strings.Contains(text, "#"):
		return "", errors.New("it has a fragment (in a password, # is written as %23)")
	case u.Scheme == "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return "", errors.New("it has no absolute path (unix: is followed by three slashes)")
		}
		return text, nil
	case !validHost(u.Hostname()):
		return "", errors.New("it has no host, or one that is no IP address and no host name")
	}
	if port := u.Port(); port != "" {
		if err := checkPort(port); err != nil {
			return "", err
		}
	}
	if u.Path != "" {
		database, _ := strings.CutPrefix(u.Path, "/")
		if _, err := strconv.ParseUint(database, 10, 31); err != nil {
			return "", errors.New("its path is not the number of a database")
		}
	}
	return text, nil
}

// parseSize reads a number of bytes, with a binary unit or without, that is at
// least so many MiB.
func parseSize(mebibytes int64) func(string) (int64, error) {
	return func(text string) (int64, error) {
		size, err := parseBytes(text)
		if err == nil && size < mebibytes<<20 {
			return 0, fmt.Errorf("it is less than %dMiB", mebibytes)
		}
		return size, err
	}
}

func parseBytes(text string) (int64, error) {
	number, unit := strings.ToLower(text), int64(1)
	for suffix, bytes := range map[string]int64{"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return 0, errors.New("it is not a whole number of KiB, MiB, GiB or bytes")
	}
	if int64(n) > math.MaxInt64/unit {
		return 0, errors.New("it is too large")
	}
	return int64(n) * unit, nil
}

// parseCount reads a limit, where 0 means none.
func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return 0, errors.New("it is not a whole number")
	case n < 0:
		return 0, errors.New("it is negative")
	case n > 1_000_000_000:
		return 0, errors.New("it is over a billion; 0 switches the limit off")
	}
	return n, nil
}

func parseDuration(min time.Duration) func(string) (time.Duration, error) {
	return func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err != nil {
			if text != "" && strings.Trim(text, "0123456789.") == "" {
				return 0, errors.New("it has no unit (ms, s, m or h)")
			}
			return 0, errors.New("it is not a duration in ms, s, m and h")
		}
		if d < min {
			return 0, errors.New("it is too short")
		}
		return d, nil
	}
}

func parseBool(text string) (bool, error) {
	b, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		return false, errors.New("it is neither true nor false")
	}
	return b, nil
}

func parseHosts(text string) ([]string, error) {
	hosts := splitList(text)
	for i, host := range hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if inner, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(inner, "]")
		}
		switch {
		case host == "":
			return nil, fmt.Errorf("host %d is empty", i+1)
		case strings.Contains(host, "*"):
			return nil, fmt.Errorf("host %d is a pattern: any name would do for a DNS rebinding attack, so each must be named", i+1)
		case !validHost(host):
			return nil, fmt.Errorf("host %d is no host name without port", i+1)
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.String() // one spelling of an IPv6 address
		}
		hosts[i] = host
	}
	return unique(hosts), nil
}

func parseOrigins(text string) ([]string, error) {
	origins := splitList(text)
	for i, text := range origins {
		origin, err := parseOrigin(text)
		if err != nil {
			return nil, fmt.Errorf("origin %d %w", i+1, err)
		}
		origins[i] = origin
	}
	return unique(origins), nil
}

// parseOrigin returns an origin as a browser writes it, so that comparing is
// all that is left to do with it.
func parseOrigin(text string) (string, error) {
	switch {
	case text == "":
		return "", errors.New("is empty")
	case text == "null":
		return text, nil
	case strings.Contains(text, "*"):
		return "", errors.New("is a pattern: calls carry credentials, and browsers refuse those unless the origin is named")
	}
	u, err := url.Parse(strings.ToLower(text))
	if err != nil || u.Scheme == "" || u.Hostname() == "" {
		return "", errors.New("is not scheme://host[:port]")
	}
	if u.User != nil || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(text, "?#") {
		return "", errors.New("has more than scheme, host and port")
	}
	host := u.Hostname()
	if !validHost(host) {
		return "", errors.New("has a host that is no host name (write an international one as xn--…)")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
		if ip.Is6() {
			host = "[" + host + "]"
		}
	}
	port := u.Port()
	if strings.HasSuffix(u.Host, ":") {
		return "", errors.New("has a colon without a port")
	}
	if port != "" {
		if err := checkPort(port); err != nil {
			return "", errors.New("has a port that is no number up to 65535")
		}
		port = strings.TrimLeft(port[:len(port)-1], "0") + port[len(port)-1:]
		if port != defaultPorts[u.Scheme] {
			host += ":" + port
		}
	}
	return u.Scheme + "://" + host, nil
}

// defaultPorts are left out of an origin by browsers.
var defaultPorts = map[string]string{"http": "80", "https": "443"}

func unique(items []string) []string {
	var out []string
	for _, item := range items {
		if !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out
}
