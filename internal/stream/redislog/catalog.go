package redislog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/stream"
)

// Status implements stream.Catalog.
func (s *Store) Status(ctx context.Context, id string) (stream.Status, error) {
	status, err := s.look(ctx, id)
	if w := s.writer(id); w != nil && w.ours(err) {
		w.resendAll() // the server lost it, and gets it back
		last, _ := w.log.Last()
		return stream.Status{Meta: w.meta, LastSeq: last}, nil
	}
	if err != nil {
		return stream.Status{}, fmt.Errorf("status: %w", s.orLost(ctx, id, err))
	}
	return status, nil
}

// orLost makes an unknown id one that nothing can be said of while the server
// has known anything for less than a lease, and the id is older: it may be of a
// stream that was lost, and that its producer is about to write again.
func (s *Store) orLost(ctx context.Context, id string, unknown error) error {
	if !errors.Is(unknown, stream.ErrNotFound) {
		return unknown
	}
	created, ok := stream.IDTime(id)
	if !ok {
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answers, err := within(ctx, s, func() []rueidis.RedisResult {
		return s.client.DoMulti(ctx, s.client.B().Get().Key(s.keys.born()).Build(), s.client.B().Time().Build())
	})
	if err != nil {
		return err
	}
	born, err := answers[0].AsInt64()
	if rueidis.IsRedisNil(err) {
		return fmt.Errorf("%w: the server has lost everything", stream.ErrUnavailable)
	}
	if err != nil {
		return storeError(err)
	}
	seconds, err := answers[1].AsIntSlice()
	if err != nil || len(seconds) != 2 {
		return fmt.Errorf("%w: the server's time: %w", stream.ErrUnavailable, err)
	}
	since := time.UnixMilli(born)
	if created.Before(since) && time.Unix(seconds[0], seconds[1]*1000).Sub(since) < s.lease {
		return fmt.Errorf("%w: the server had lost everything", stream.ErrUnavailable)
	}
	return unknown
}

// look returns what the server knows of a stream. A writer here learns from it
// when its stream has ended.
func (s *Store) look(ctx context.Context, id string) (stream.Status, error) {
	statuses, errs := s.lookAll(ctx, []string{id})
	return statuses[0], errs[0]
}

// lookAll looks at many streams in one round trip.
func (s *Store) lookAll(ctx context.Context, ids []string) ([]stream.Status, []error) {
	statuses, errs := make([]stream.Status, len(ids)), make([]error, len(ids))
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, 2*len(ids))
	seen := make([]uint64, len(ids))
	for i, id := range ids {
		if w := s.writer(id); w != nil {
			seen[i], _ = w.log.Last()
		}
		if _, ok := stream.IDTime(id); ok { // anything else is nobody's, and no part of a key's name
			commands = append(commands, s.client.B().Hgetall().Key(s.keys.meta(id)).Build(),
				s.client.B().Hget().Key(s.keys.gone(id)).Field("owner").Build())
		}
	}
	var answers []rueidis.RedisResult
	if len(commands) > 0 {
		var err error
		if answers, err = within(ctx, s, func() []rueidis.RedisResult { return s.client.DoMulti(ctx, commands...) }); err != nil {
			answers = slices.Repeat([]rueidis.RedisResult{rueidis.NewErrorResult(err)}, len(commands))
		}
	}
	for i, id := range ids {
		if _, ok := stream.IDTime(id); !ok {
			errs[i] = stream.ErrNotFound
			continue
		}
		statuses[i], errs[i] = s.readStatus(id, answers[0], answers[1])
		answers = answers[2:]
		s.tell(id, seen[i], statuses[i], errs[i])
	}
	return statuses, errs
}

// tell lets a writer here know what became of its stream.
func (s *Store) tell(id string, seen uint64, status stream.Status, err error) {
	w := s.writer(id)
	switch {
	case w == nil:
	case err == nil && !status.Running():
		w.finish(status.Terminal)
	case err == nil && seen > status.LastSeq:
		w.resend(status.LastSeq) // the server has lost what the readers had before the look
	case errors.Is(err, stream.ErrGone) && !unknown(err):
		w.vanish(err)
	}
}

func (s *Store) readStatus(id string, meta, gone rueidis.RedisResult) (stream.Status, error) {
	owner, err := gone.ToString()
	switch {
	case err == nil:
		return stream.Status{}, &stream.GoneError{Owner: owner}
	case !rueidis.IsRedisNil(err):
		return stream.Status{}, storeError(err)
	}
	return s.readLingering(id, meta)
}

// readLingering is readStatus for who had the stream open before it was deleted.
func (s *Store) readLingering(id string, meta rueidis.RedisResult) (stream.Status, error) {
	fields, err := meta.AsStrMap()
	if err != nil {
		return stream.Status{}, storeError(err)
	}
	if len(fields) > 0 {
		status, err := readMeta(fields)
		switch {
		case err != nil:
			return stream.Status{}, fmt.Errorf("what the server knows of %s is damaged: %w", id, err)
		case s.expired(status.Ended):
			return stream.Status{}, &stream.GoneError{Owner: status.Owner}
		}
		return status, nil
	}
	if stream.Expired(id, s.now(), s.retention) {
		return stream.Status{}, errAged
	}
	return stream.Status{}, stream.ErrNotFound
}

// errAged is all that can be said of an old stream that the server does not know:
// it has expired, or it runs so long already, and the server has lost it.
var errAged = &stream.GoneError{}

// unknown reports whether the server knows nothing of a stream.
func unknown(err error) bool {
	return errors.Is(err, stream.ErrNotFound) || errors.Is(err, errAged)
}

func readMeta(f map[string]string) (stream.Status, error) {
	created, err := strconv.ParseInt(f["created"], 10, 64)
	if err != nil {
		return stream.Status{}, err
	}
	status := stream.Status{Meta: stream.Meta{
		ID: f["id"], Owner: f["owner"], Dialect: f["dialect"], Model: f["model"], Provider: f["provider"],
		Created: time.Unix(0, created), IdempotencyKey: f["key"], Fingerprint: f["fingerprint"],
	}}
	if status.LastSeq, err = strconv.ParseUint(f["last"], 10, 64); err != nil {
		return stream.Status{}, err
	}
	if f["end"] != "" {
		if status.Terminal, err = readEnd(f["end"], f["end_type"], f["end_data"], f["end_recovery"]); err != nil {
			return stream.Status{}, err
		}
		ended, err := strconv.ParseInt(f["ended"], 10, 64)
		if err != nil {
			return stream.Status{}, err
		}
		status.Ended = time.UnixMilli(ended)
	}
	if f["booked"] != "" {
		if err := json.Unmarshal([]byte(f["booked"]), &status.Booked); err != nil {
			return stream.Status{}, err
		}
	}
	return status, nil
}

// readEnd reads a terminal event from how the scripts know it.
func readEnd(seq, kind, data, recovery string) (stream.Event, error) {
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return stream.Event{}, err
	}
	r, err := strconv.ParseUint(recovery, 10, 8)
	if err != nil {
		return stream.Event{}, err
	}
	return stream.Event{Seq: n, Type: kind, Data: []byte(data), Recovery: uint8(r)}, nil
}

// Claimed implements stream.Catalog.
func (s *Store) Claimed(ctx context.Context, owner, key string) (stream.Status, error) {
	if key == "" {
		return stream.Status{}, fmt.Errorf("claimed: %w", stream.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	get := s.client.B().Get().Key(s.keys.claim(claimHash(owner, key))).Build()
	id, err := s.ask(ctx, get).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return stream.Status{}, fmt.Errorf("claimed: %w", stream.ErrNotFound)
	case err != nil:
		return stream.Status{}, fmt.Errorf("claimed: %w", storeError(err))
	}
	status, err := s.look(ctx, id)
	if err != nil {
		return stream.Status{}, fmt.Errorf("claimed: %w", err)
	}
	if status.FailedBeforeToken() { // freed between the two looks
		return stream.Status{}, fmt.Errorf("claimed: %w", stream.ErrNotFound)
	}
	return status, nil
}

// List implements stream.Catalog.
func (s *Store) List(ctx context.Context, owner, before string, limit int) ([]stream.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var list []stream.Status
	for len(list) < limit {
		top := "+"
		if before != "" {
			top = "(" + before
		}
		want := int64(min(limit-len(list), 100))
		page := s.client.B().Zrevrangebylex().Key(s.keys.owned(ownerHash(owner))).Max(top).Min("-").Limit(0, want).Build()
		ids, err := s.ask(ctx, page).AsStrSlice()
		if err != nil {
			return nil, fmt.Errorf("list: %w", storeError(err))
		}
		statuses, errs := s.lookAll(ctx, ids)
		for i, err := range errs {
			switch {
			case err == nil:
				list = append(list, statuses[i])
			case errors.Is(err, stream.ErrGone), errors.Is(err, stream.ErrNotFound):
			default:
				return nil, fmt.Errorf("list: %w", err)
			}
		}
		if int64(len(ids)) < want {
			break
		}
		before = ids[len(ids)-1]
	}
	return list, nil
}

// linger is how long a deleted stream is there for the mirrors that have it open.
const linger = 10 * time.Second

// Delete implements stream.Catalog.
func (s *Store) Delete(ctx context.Context, id string) error {
	if _, err := s.look(ctx, id); err != nil {
		return fmt.Errorf("delete: %w", s.orLost(ctx, id, err))
	}
	answer, err := s.run(ctx, deleteScript, []string{s.keys.log(id), s.keys.meta(id), s.keys.gone(id)},
		[]string{string(s.keys), id, s.retentionMS(), rand.Text(), milliseconds(linger)})
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	switch answer[0] {
	case "ok":
		return nil
	case "running":
		return fmt.Errorf("delete: %w", stream.ErrRunning)
	}
	_, err = s.look(ctx, id)
	if err == nil {
		err = stream.ErrUnavailable // created again between the two
	}
	return fmt.Errorf("delete: %w", err)
}

func isFull(err error) bool { return errors.Is(err, stream.ErrFull) }
