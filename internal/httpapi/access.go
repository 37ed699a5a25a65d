package httpapi

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// AccessOptions say who may do what.
type AccessOptions struct {
	Keys           []string // client keys; with some, every call needs one
	Loopback       bool     // listening on loopback only
	AllowedHosts   []string // names besides loopback ones that Host may have, without a port
	AllowedOrigins []string // web origins whose pages may call, besides our own page
	Secret         []byte   // signs read and control tokens
}

// Without keys on loopback there is no password between a web page and the
// operator's model account. What keeps foreign pages out is the browser's own
// word: the Host it was told to call, the Origin it calls from, and
// Sec-Fetch-Site where it sends no Origin.

// checkHost refuses names that are not this machine's: a foreign name that was
// made to point here would be same-origin with its page.
func (s *Server) checkHost(c *fiber.Ctx) error {
	if s.gate.mode != modeLocal {
		return c.Next()
	}
	host := hostname(c.Get("Host"))
	if isLoopbackName(host) || slices.Contains(s.Access.AllowedHosts, host) {
		return c.Next()
	}
	return &problem{status: http.StatusForbidden, code: "host_not_allowed",
		message: "This server answers to loopback names only. Add " + printableName(host) + " to WEIR_ALLOWED_HOSTS to allow it."}
}

// checkOrigin refuses pages of other sites and answers CORS for allowed ones.
func (s *Server) checkOrigin(c *fiber.Ctx) error {
	origin, site := c.Get("Origin"), c.Get("Sec-Fetch-Site")
	c.Vary("Origin")
	switch {
	case site == "same-origin" || sameOrigin(origin, c.Get("Host")):
		return c.Next()
	case origin == "" && site == "cross-site":
		return &problem{status: http.StatusForbidden, code: "cross_site",
			message: "A page of another site may not call this API without CORS. Call it with fetch or EventSource " +
				"from an origin that WEIR_CORS_ORIGINS names."}
	case origin == "":
		return c.Next()
	case !s.originAllowed(origin):
		return &problem{status: http.StatusForbidden, code: "origin_not_allowed",
			message: "Pages of " + printableName(origin) + " may not call this API. Add it to WEIR_CORS_ORIGINS to allow it."}
	}
	allowOrigin(c, origin)
	if c.Method() == http.MethodOptions && c.Get("Access-Control-Request-Method") != "" {
		return preflight(c)
	}
	return c.Next()
}

// allowOrigin lets a page read the answer. The origin is named: an EventSource
// with credentials takes no "*".
func allowOrigin(c *fiber.Ctx, origin string) {
	c.Set("Access-Control-Allow-Origin", origin)
	c.Set("Access-Control-Allow-Credentials", "true")
	c.Set("Access-Control-Expose-Headers", exposedHeaders)
}

const exposedHeaders = "Location, Weir-Stream-Id, Weir-Control-Token, Retry-After, X-Request-Id, " +
	"X-Ratelimit-Limit-Requests, X-Ratelimit-Remaining-Requests, X-Ratelimit-Reset-Requests"

// preflight allows what is asked for: SDKs send headers of their own making.
func preflight(c *fiber.Ctx) error {
	c.Set("Access-Control-Allow-Methods", c.Get("Access-Control-Request-Method"))
	if headers := c.Get("Access-Control-Request-Headers"); headers != "" {
		c.Set("Access-Control-Allow-Headers", headers)
	}
	if c.Get("Access-Control-Request-Private-Network") == "true" {
		c.Set("Access-Control-Allow-Private-Network", "true")
	}
	c.Vary("Access-Control-Request-Method", "Access-Control-Request-Headers")
	c.Set("Access-Control-Max-Age", "600")
	return c.SendStatus(http.StatusNoContent)
}

func (s *Server) originAllowed(origin string) bool {
	if slices.Contains(s.Access.AllowedOrigins, strings.ToLower(origin)) {
		return true
	}
	u, err := url.Parse(origin)
	return s.gate.mode == modeLocal && err == nil && (u.Scheme == "http" || u.Scheme == "https") &&
		isLoopbackName(strings.ToLower(u.Hostname()))
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return origin != "" && err == nil && host != "" && strings.EqualFold(u.Host, host)
}

// hostname returns a Host header's name, in lower case, without port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

func isLoopbackName(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}

// printableName bounds what of a client's words comes back to it.
func printableName(s string) string {
	if s == "" {
		return "an empty name"
	}
	return s[:min(len(s), 100)]
}

// requireJSON refuses bodies that a plain HTML form could send across sites.
func requireJSON(c *fiber.Ctx) error {
	kind, _, _ := strings.Cut(c.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if kind != "application/json" && !(strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type",
			message: "Send the body as JSON, with the header Content-Type: application/json."}
	}
	if encoding := c.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_encoding",
			message: "Send the body uncompressed, without Content-Encoding."}
	}
	return nil
}
