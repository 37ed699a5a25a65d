package redislog

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// certificate writes one for 127.0.0.1 that nobody trusts.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert", "CERTIFICATE", der), write("key", "PRIVATE KEY", privateDER)
}

// permissions are what a user of the store needs, beside the keys and channels
// of its prefix.
const permissions = "+@connection +@scripting +@hash +@set +@sortedset +@stream +@string +@keyspace +@pubsub +time -@dangerous"

// A user who may do no more than the store needs, over TLS.
func TestTLSAndUser(t *testing.T) {
	cert, key := certificate(t)
	port := redistest.FreePort(t)
	server := redistest.Start(t, redistest.Config{Args: []string{
		"--tls-port", fmt.Sprint(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no",
	}})
	server.Command("ACL SETUSER weir on >pass ~{weir}:* &{weir}:* " + permissions)
	url := fmt.Sprintf("rediss://weir:pass@127.0.0.1:%d/0", port)
	if _, err := Open(t.Context(), Options{URL: url}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Open with a certificate of nobody's: %v", err)
	}
	s := newStory(t, Options{URL: url + "?skip_verify=true", Lease: shortLease})
	g := s.read("elsewhere", s.b, 0)
	s.must("Append", s.append(10))
	s.a.frozen.Store(true)
	s.wantLost(g)
	meta := newMeta("ann")
	meta.IdempotencyKey = "key"
	w := create(t, s.b, meta)
	s.must("Seal", s.b.Seal(s.ctx, meta.ID, stream.DoneEvent(stream.Summary{})))
	s.must("Book", w.Book(s.ctx, stream.Summary{}))
	if _, err := s.b.Claimed(s.ctx, "ann", "key"); err != nil {
		t.Errorf("Claimed: %v", err)
	}
	if list, err := s.b.List(s.ctx, "ann", "", 10); err != nil || len(list) != 2 {
		t.Errorf("List: %d streams, %v", len(list), err)
	}
	s.must("Delete", s.b.Delete(s.ctx, meta.ID))
	if _, err := s.b.Secret(s.ctx); err != nil {
		t.Errorf("Secret: %v", err)
	}
}
