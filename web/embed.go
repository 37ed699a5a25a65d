// Package web holds the chat page: plain ES modules, served as they are.
package web

import (
	"embed"
	"io/fs"
)

// ContentSecurityPolicy is what the page is written for: everything comes from
// its own origin, nothing is inline. Model output that slipped through the
// sanitiser could still neither run a script nor call home.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// The list is explicit so that what lies beside the page for its development
// is never served by accident.
//
//go:embed index.html assets/icon.svg assets/css/*.css assets/js/*.js assets/vendor/*.js assets/vendor/LICENSE-*
var files embed.FS

// Files is the page: index.html belongs at /, the assets folder at /assets/.
func Files() fs.FS { return files }
