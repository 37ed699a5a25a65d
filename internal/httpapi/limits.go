package httpapi

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
)

// limit counts one request that starts a generation against its key or, without
// keys, its address. Reading a stream costs nothing.
func (s *Server) limit(c *fiber.Ctx, owner string) error {
	if s.limiter == nil {
		return nil
	}
	key := owner
	if s.gate.mode != modeKeys {
		key = "address " + limitedAddress(c.IP())
	}
	d := s.limiter.Allow(key, time.Now())
	c.Set("X-Ratelimit-Limit-Requests", strconv.Itoa(d.Limit))
	c.Set("X-Ratelimit-Remaining-Requests", strconv.Itoa(d.Remaining))
	c.Set("X-Ratelimit-Reset-Requests", wholeSeconds(d.Reset).String())
	if d.Allowed {
		return nil
	}
	return &problem{
		status: http.StatusTooManyRequests, code: "rate_limit_exceeded", retryAfter: d.RetryAfter,
		message: "The limit of " + strconv.Itoa(d.Limit) + " requests a minute is used up. Try again in " +
			wholeSeconds(d.RetryAfter).String() + ".",
	}
}

// limitedAddress is what an address is counted as: of IPv6 a host has a whole
// /64 to choose from.
func limitedAddress(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is6() || addr.Is4In6() {
		return ip
	}
	prefix, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return prefix.String()
}

// wholeSeconds rounds up: a client that waits so long has waited long enough.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
