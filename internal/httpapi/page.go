package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// pageRoutes serves the chat page: index.html at /, all else under /assets.
func (s *Server) pageRoutes() {
	s.app.Get("/", func(c *fiber.Ctx) error { return s.sendFile(c, "index.html") })
	s.app.Get("/assets/*", func(c *fiber.Ctx) error { return s.sendFile(c, "assets/"+c.Params("*")) })
}

// sendFile sends a file of the page. Browsers ask each time whether it has
// changed, so that a new version is a new page.
func (s *Server) sendFile(c *fiber.Ctx, name string) error {
	data, err := fs.ReadFile(s.Page, name)
	if err != nil {
		return &problem{status: http.StatusNotFound, code: "not_found", message: "There is no such file."}
	}
	sum := sha256.Sum256(data)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	c.Set("ETag", tag)
	c.Set("Cache-Control", "no-cache")
	c.Set("X-Content-Type-Options", "nosniff")
	c.Set("Referrer-Policy", "no-referrer")
	c.Set("Cross-Origin-Opener-Policy", "same-origin")
	c.Set("Cross-Origin-Resource-Policy", "same-origin")
	c.Set("Content-Security-Policy", s.ContentSecurityPolicy)
	if strings.Contains(c.Get("If-None-Match"), tag) {
		return c.SendStatus(http.StatusNotModified)
	}
	c.Set("Content-Type", contentType(name))
	return c.Send(data)
}

// contentType does not ask the machine: what it knows of .js differs.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".md", "", ".txt":
		return "text/plain; charset=utf-8"
	default:
		if kind := mime.TypeByExtension(ext); kind != "" {
			return kind
		}
		return "application/octet-stream"
	}
}
