// Package redislog is the log in Redis or Valkey, shared by any number of
// replicas. The server has the truth: what a reader sees is there before, and
// every change is one script that checks what it relies on.
package redislog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/semaphore"

	"weir/internal/stream"
)

// Options of a Store.
type Options struct {
	// URL of the server: redis:// or rediss://, with user and password.
	URL string
	// Prefix of all keys; "{weir}:" when empty. It needs a hash tag to be of
	// use in a cluster.
	Prefix string
	// Retention is how long an ended stream is kept; 24 h when zero.
	Retention time.Duration
	// Now is the clock; time.Now when nil. Leases go by the server's.
	Now func() time.Time
	// Lease is how long a replica may be silent before the others end its
	// streams; 8 s when zero.
	Lease time.Duration
	// StreamBacklog and Backlog bound what is taken in hand while the server
	// does not answer, for a stream and for all; 4 MiB and 256 MiB when zero.
	StreamBacklog, Backlog int64
	// MaxMemory bounds what the streams that are produced here take in memory:
	// beyond it none can be created. Zero means no bound.
	MaxMemory int64
	// Logger is told of outages and of what was lost; slog.Default when nil.
	Logger *slog.Logger

	wrap func(rueidis.Client) rueidis.Client // a test's: comes between the store and its client
}

// How long calls may take.
const (
	callTimeout   = 4 * time.Second  // of the contract's methods: less than the 5 s after which a store is unreachable
	sendTimeout   = time.Second      // of an append, before the events are taken in hand
	appendTimeout = 10 * time.Second // of an append that is on its way; a dead connection is found sooner
	lookTimeout   = time.Second      // of a look at what could be done without
	quitTimeout   = time.Second      // of what Close still has to say
	connTimeout   = 2 * time.Second
)

// Store implements stream.Log.
type Store struct {
	client    rueidis.Client
	keys      keys
	token     string // names this replica, and this life of it
	retention time.Duration
	lease     time.Duration
	now       func() time.Time
	logger    *slog.Logger

	streamBacklog int64
	backlog       *semaphore.Weighted
	backlogSize   int64
	maxMemory     int64
	memory        atomic.Int64 // what the streams produced here take
	queue         sendQueue
	health        health
	ears          *ears
	notices       chan string // ends that others have written
	nudge         chan struct{}
	secret        atomic.Pointer[string] // as it was handed out
	doubted       atomic.Bool            // the server was away, and may have come back with less
	frozen        atomic.Bool            // a test's: neither renews its lease nor hears of anything

	done   chan struct{} // closed when the store is: nothing is taken in hand any more
	cancel context.CancelFunc
	all    sync.WaitGroup // every goroutine but those of calls
	calls  sync.WaitGroup // of calls, which end with the client; added to under mu, before done is closed

	mu        sync.Mutex
	writers   map[string]*writer   // guarded by mu; streams produced here, or being created
	mirrors   map[string]*mirror   // guarded by mu; streams read here
	abandoned map[string]time.Time // guarded by mu; creates whose outcome is unknown, since when
}

// Open connects to the server, and fails when that does not answer.
func Open(ctx context.Context, o Options) (*Store, error) {
	setDefaults(&o)
	client, err := connect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	if client.Mode() == rueidis.ClientModeCluster && !hashTag.MatchString(o.Prefix) {
		client.Close()
		return nil, fmt.Errorf("redis: this is a cluster, where the prefix %q needs braces: {%[1]s}", o.Prefix)
	}
	if o.wrap != nil {
		client = o.wrap(client)
	}
	s := &Store{
		client: client, keys: keys(o.Prefix), token: rand.Text(),
		retention: o.Retention, lease: o.Lease, now: o.Now, logger: o.Logger,
		streamBacklog: o.StreamBacklog, maxMemory: o.MaxMemory, backlog: semaphore.NewWeighted(o.Backlog), backlogSize: o.Backlog,
		done: make(chan struct{}), notices: make(chan string, 1024), nudge: make(chan struct{}, 1),
		writers: map[string]*writer{}, mirrors: map[string]*mirror{}, abandoned: map[string]time.Time{},
	}
	s.queue.wake = make(chan struct{}, senders)
	s.health.init()
	s.ears = newEars(client, s.logger)
	if _, err := s.renew(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("redis: it answers, but can't run the scripts; it must be Redis 7 or Valkey: %w", err)
	}
	s.start()
	s.checkEviction(ctx)
	return s, nil
}

// hashTag is the part of a key's name that decides on its slot.
var hashTag = regexp.MustCompile(`^[^{]*\{[^}]+\}`)

// checkEviction warns of a server that may throw away what runs. One that does
// not say is taken to know what it does.
func (s *Store) checkEviction(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	info, err := s.ask(ctx, s.client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return
	}
	for line := range strings.Lines(info) {
		policy, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:")
		if found && policy != "noeviction" && !strings.Contains(info, "\nmaxmemory:0\r") {
			s.logger.Warn("redis: maxmemory-policy should be noeviction: the server may evict streams before they expire", "policy", policy)
		}
	}
}

func setDefaults(o *Options) {
	if o.Prefix == "" {
		o.Prefix = "{weir}:"
	}
	if o.Retention == 0 {
		o.Retention = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lease == 0 {
		o.Lease = 8 * time.Second
	}
	if o.StreamBacklog == 0 {
		o.StreamBacklog = 4 << 20
	}
	if o.Backlog == 0 {
		o.Backlog = 256 << 20
	}
	o.StreamBacklog = min(o.StreamBacklog, o.Backlog)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func connect(ctx context.Context, o Options) (rueidis.Client, error) {
	options, err := rueidis.ParseURL(o.URL)
	if err != nil {
		return nil, errors.New("the URL is malformed") // its own error repeats the password
	}
	options.DisableCache = true
	// A server that went silent is noticed by a ping after KeepAlive that is
	// not answered in ConnWriteTimeout: together less than callTimeout, so that
	// the first calls after it has come back are not its victims, too.
	options.Dialer.KeepAlive = time.Second
	if options.Dialer.Timeout == 0 {
		options.Dialer.Timeout = connTimeout
	}
	if options.ConnWriteTimeout == 0 {
		options.ConnWriteTimeout = connTimeout
	}
	// Half a MiB each way, for each of a handful of connections, is for more
	// than one process has to say.
	options.ReadBufferEachConn, options.WriteBufferEachConn = 128<<10, 128<<10
	options.PipelineMultiplex = 1
	conns := &conns{logger: o.Logger, open: map[*conn]struct{}{}}
	conns.track(&options)
	inner, err := rueidis.NewClient(options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(options.InitAddress, ", "), err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := inner.Do(ctx, inner.B().Ping().Build()).Error(); err != nil {
		inner.Close()
		return nil, fmt.Errorf("%s: %w", strings.Join(options.InitAddress, ", "), err)
	}
	return client{inner, conns}, nil
}

// start begins what the store does by itself, until Close.
func (s *Store) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.ears.add(s.keys.notices(s.token), s.hearNotice, s.doubt, s.nudgeKeeper)
	s.all.Go(func() { s.ears.listen(ctx) })
	s.all.Go(func() { s.keep(ctx) })
	s.all.Go(func() { s.heed(ctx) })
	for range senders {
		s.all.Go(func() { s.send(ctx) })
	}
}

// Close ends the store, and returns when nothing of it runs any more. Streams
// that still run are left to their lease.
func (s *Store) Close() {
	s.mu.Lock()
	if s.isClosed() {
		s.mu.Unlock()
		return
	}
	close(s.done)
	for _, m := range s.mirrors {
		m.cancel()
	}
	s.mu.Unlock()
	s.cancel()
	s.all.Wait()
	s.leave()
	s.client.Close()
	s.calls.Wait()
}

// leave gives the lease back if it protects nothing any more.
func (s *Store) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
	defer cancel()
	left := s.client.Do(ctx, s.client.B().Scard().Key(s.keys.running(s.token)).Build())
	if n, err := left.AsInt64(); err != nil || n > 0 {
		return
	}
	for _, result := range s.client.DoMulti(ctx,
		s.client.B().Zrem().Key(s.keys.replicas()).Member(s.token).Build(),
		s.client.B().Del().Key(s.keys.notices(s.token)).Build()) {
		if err := result.Error(); err != nil {
			s.logger.Debug("redis: give the lease back", "error", err)
		}
	}
}

// Secret returns a random secret that all replicas have in common. It outlives
// the loss of the server's data while one of them runs.
func (s *Store) Secret(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := s.keys.secret()
	set := s.client.B().Set().Key(key).Value(rand.Text() + rand.Text()).Nx().Build()
	if err := s.ask(ctx, set).Error(); err != nil && !rueidis.IsRedisNil(err) {
		return "", fmt.Errorf("make the secret: %w", storeError(err))
	}
	secret, err := s.ask(ctx, s.client.B().Get().Key(key).Build()).ToString()
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", storeError(err))
	}
	s.secret.Store(&secret)
	return secret, nil
}

// theSecret is the one that was handed out; empty when none was.
func (s *Store) theSecret() string {
	if secret := s.secret.Load(); secret != nil {
		return *secret
	}
	return ""
}

func (s *Store) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *Store) retentionMS() string { return milliseconds(s.retention) }

// expired says whether a stream that ended then is to be forgotten. The server
// does so by its own clock, a little earlier or later.
func (s *Store) expired(ended time.Time) bool {
	return !ended.IsZero() && s.now().Sub(ended) > s.retention
}

// writer returns the writer of a stream that is produced here, or nil.
func (s *Store) writer(id string) *writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.writers[id]; w != nil && w.created {
		return w
	}
	return nil
}

// forget drops the writer of a stream that is no longer produced here.
func (s *Store) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.writers[id]; w != nil {
		s.memory.Add(-w.log.Bytes())
		delete(s.writers, id)
	}
}

var _ stream.Log = (*Store)(nil)
