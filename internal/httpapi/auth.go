package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v2"

	"weir/internal/stream"
)

// mode is how callers are told apart.
type mode int

const (
	modeLocal     mode = iota // no keys, loopback only: one owner
	modeKeys                  // every call needs a client key
	modeAnonymous             // no keys, open to the network: streams have no owners, only tokens
)

// Owners where keys tell none.
const (
	ownerLocal     = "local"
	ownerAnonymous = "anonymous"
)

// gate knows who calls and what they may do.
type gate struct {
	mode   mode
	owners map[[sha256.Size]byte]string // hash of a client key → owner
	secret []byte
}

func newGate(o AccessOptions) *gate {
	g := &gate{owners: map[[sha256.Size]byte]string{}, secret: o.Secret}
	for _, key := range o.Keys {
		hash := sha256.Sum256([]byte(key))
		g.owners[hash] = "key_" + hex.EncodeToString(hash[:8])
	}
	switch {
	case len(o.Keys) > 0:
		g.mode = modeKeys
	case !o.Loopback:
		g.mode = modeAnonymous
	}
	return g
}

var errUnauthorized = &problem{status: http.StatusUnauthorized, code: "invalid_api_key",
	message: "A client key is needed: send it as \"Authorization: Bearer <key>\". Keys are set in WEIR_API_KEYS."}

// owner says whose streams the caller's are, or that it needs a key.
func (g *gate) owner(c *fiber.Ctx) (string, error) {
	switch g.mode {
	case modeLocal:
		return ownerLocal, nil
	case modeAnonymous:
		return ownerAnonymous, nil
	}
	owner, known := g.ownerOf(bearer(c.Get("Authorization")))
	if !known {
		return "", errUnauthorized
	}
	return owner, nil
}

// ownerOf returns whose a client key is. Looking it up by its hash gives away
// nothing about the keys there are.
func (g *gate) ownerOf(key string) (owner string, known bool) {
	owner, known = g.owners[sha256.Sum256([]byte(key))]
	return owner, known
}

// ownerExists reports whether an owner's key is still among the keys.
func (g *gate) ownerExists(owner string) bool {
	for _, o := range g.owners {
		if o == owner {
			return true
		}
	}
	return false
}

// mayRead reports whether the caller may read a stream of that owner; the error
// says that it showed nothing at all to be judged by.
func (g *gate) mayRead(c *fiber.Ctx, id, owner string) (bool, error) {
	if token := c.Query("token"); token != "" && bearer(c.Get("Authorization")) == "" && g.mode != modeLocal {
		return (g.mode == modeAnonymous || g.ownerExists(owner)) && g.valid(readToken, token, id, owner), nil
	}
	return g.mayControl(c, id, owner)
}

// mayControl is mayRead for cancel and delete.
func (g *gate) mayControl(c *fiber.Ctx, id, owner string) (bool, error) {
	caller, err := g.owner(c)
	if err != nil {
		return false, err
	}
	if g.mode == modeAnonymous {
		return g.valid(controlToken, bearer(c.Get("Authorization")), id, owner), nil
	}
	return caller == owner, nil
}

// tokenKind keeps one kind of token from passing as another.
type tokenKind string

const (
	readToken    tokenKind = "read"
	controlToken tokenKind = "control"
)

// token signs what it opens. It needs no date: it opens one stream, and dies
// with it.
func (g *gate) token(kind tokenKind, id, owner string) string {
	mac := hmac.New(sha256.New, g.secret)
	mac.Write([]byte(string(kind) + "\x00" + id + "\x00" + owner))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (g *gate) valid(kind tokenKind, token, id, owner string) bool {
	return hmac.Equal([]byte(token), []byte(g.token(kind, id, owner)))
}

// eventsURL is where a stream's events are; it opens without a header, as an
// EventSource needs it.
func (g *gate) eventsURL(id, owner string) string {
	url := "/v1/streams/" + id + "/events"
	if g.mode == modeLocal {
		return url
	}
	return url + "?token=" + g.token(readToken, id, owner)
}

// bearer returns the credential of an Authorization header.
func bearer(header string) string {
	scheme, credential, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(credential)
}

// readable returns the status of a stream that the caller may read.
func (s *Server) readable(c *fiber.Ctx, id string) (stream.Status, error) {
	return s.permitted(c, id, s.gate.mayRead)
}

// controllable returns the status of a stream that the caller may end.
func (s *Server) controllable(c *fiber.Ctx, id string) (stream.Status, error) {
	return s.permitted(c, id, s.gate.mayControl)
}

// permitted looks a stream up. Somebody else's is answered as one that is not.
func (s *Server) permitted(c *fiber.Ctx, id string, may func(*fiber.Ctx, string, string) (bool, error)) (stream.Status, error) {
	status, err := s.status(id)
	owner := status.Owner
	if gone := asGone(err); gone != nil {
		owner = gone.Owner
	}
	allowed, authErr := may(c, id, owner)
	switch {
	case authErr != nil:
		return status, authErr
	case err != nil && owner == "":
		return status, err // unknown, or so old that its id says enough
	case !allowed:
		return stream.Status{}, stream.ErrNotFound
	}
	return status, err
}
