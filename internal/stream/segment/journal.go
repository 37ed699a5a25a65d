package segment

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"weir/internal/stream"
)

// commit is a record on its way into a segment.
type commit struct {
	header // kind, recovery, stream, seq and previous are the caller's to set

	events  []stream.Event // the payload of kindEvents
	payload []byte         // of every other kind
	span    *span          // of the stream; stretched to where the record stands

	at  position // where it stands; valid once it is written
	err error    // why it is not
}

func (c *commit) size() int64 {
	if c.kind != kindEvents {
		return headerSize + int64(len(c.payload))
	}
	size := int64(headerSize)
	for i := range c.events {
		size += uvarintSize(len(c.events[i].Type)) + int64(len(c.events[i].Type)) +
			uvarintSize(len(c.events[i].Data)) + int64(len(c.events[i].Data))
	}
	return size
}

func uvarintSize(n int) int64 {
	size := int64(1)
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// ends reports whether the record may use the room that is kept for ends.
func (c *commit) ends() bool { return c.kind != kindEvents && c.kind != kindCreate }

// batch is what one write takes: the commits of all who came while the write
// before was going on. The first who came writes it.
type batch struct {
	commits []*commit
	written chan struct{} // closed once it is; nil while the first is alone
}

// journal appends records to the newest segment. There is no writer goroutine:
// whoever has the turn writes for everybody, which costs no hand-over.
type journal struct {
	shelf       *shelf
	logger      *slog.Logger
	sync        bool         // a record is on the disk before its commit returns
	segmentSize int64        // a segment is begun anew when the next record would make it larger
	running     atomic.Int64 // streams, for whose ends room is kept

	mu      sync.Mutex
	pending *batch // guarded by mu; takes commits until its first has the turn
	spare   *batch // guarded by mu

	turn   sync.Mutex   // held by the one who writes
	active *segmentFile // guarded by turn; nil before the first record
	next   uint32       // guarded by turn; the number of the next segment
	room   int64        // guarded by turn; of the active segment
	end    int64        // guarded by turn; where the active segment ends
	torn   bool         // guarded by turn; a failed write is yet to be cut off
	full   bool         // guarded by turn; there was no room for another segment
	closed bool         // guarded by turn; nothing is written any more
	buf    []byte       // guarded by turn; records not yet written
	inBuf  []*commit    // guarded by turn; whose they are
}

// commit writes one record, together with those of everybody else.
func (j *journal) commit(c *commit) error {
	j.mu.Lock()
	b, first := j.pending, false
	if b == nil {
		b, first = j.newBatch(), true
	} else if b.written == nil {
		b.written = make(chan struct{})
	}
	b.commits = append(b.commits, c)
	written := b.written
	j.mu.Unlock()

	if !first {
		<-written
		return c.err
	}
	j.turn.Lock()
	j.mu.Lock()
	j.pending, written = nil, b.written
	j.mu.Unlock()
	j.write(b.commits)
	j.turn.Unlock()
	if written != nil {
		close(written)
	}
	err := c.err
	j.recycle(b)
	return err
}

// commitAll writes several records in one go. Each commit has its own error.
func (j *journal) commitAll(commits []*commit) {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.write(commits)
}

// newBatch begins the pending batch. The caller holds mu.
func (j *journal) newBatch() *batch {
	b := j.spare
	if j.spare = nil; b == nil {
		b = &batch{}
	}
	j.pending = b
	return b
}

func (j *journal) recycle(b *batch) {
	clear(b.commits)
	b.commits, b.written = b.commits[:0], nil
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spare = b
}

// keepBuffer is how large a write buffer may stay.
const keepBuffer = 1 << 20

// write writes the commits, into more than one segment if need be. The caller
// has the turn.
func (j *journal) write(commits []*commit) {
	for _, c := range commits {
		if err := j.makeRoom(c); err != nil {
			c.err = err
			continue
		}
		j.encode(c)
	}
	j.flush()
	if cap(j.buf) > keepBuffer {
		j.buf = nil
	}
}

// makeRoom sees to it that the record fits behind what the buffer holds.
func (j *journal) makeRoom(c *commit) error {
	if j.closed {
		return fmt.Errorf("segment: %w: the store is closed", stream.ErrUnavailable)
	}
	size := c.size()
	// A stream that could begin in the last bytes would end right there.
	if j.fits(size, c.ends()) && !(j.full && c.kind == kindCreate) {
		return nil
	}
	if size > 1<<30 {
		return fmt.Errorf("a record of %d bytes: %w", size, stream.ErrFull)
	}
	j.flush()
	err := j.rotate(size)
	j.note(errors.Is(err, stream.ErrFull))
	if err != nil && c.ends() && j.fits(size, true) {
		return nil
	}
	return err
}

// note says so when the disk is full, and when it is no more.
func (j *journal) note(full bool) {
	switch {
	case full && !j.full:
		j.logger.Warn("the disk is full: new streams are refused, and what runs can only be ended", "dir", j.shelf.dir)
	case j.full && !full:
		j.logger.Info("there is room on the disk again", "dir", j.shelf.dir)
	}
	j.full = full
}

func (j *journal) fits(size int64, ends bool) bool {
	if j.active == nil {
		return false
	}
	free := j.room - j.end - int64(len(j.buf))
	if !ends {
		free -= j.reserve()
	}
	return size <= free
}

// reserve is the part of a segment's room that is kept for ends: for those of
// the streams that run, and for some tombstones.
func (j *journal) reserve() int64 {
	const endSize = 1 << 10 // with the account that is booked behind it
	return min(max(j.segmentSize/64, j.running.Load()*endSize), j.segmentSize/2)
}

// encode appends the record to the buffer.
func (j *journal) encode(c *commit) {
	c.at = position{j.active.number, uint32(j.end + int64(len(j.buf)))}
	if c.kind == kindCreate {
		c.stream = c.at
	}
	from := len(j.buf)
	j.buf = append(j.buf, make([]byte, headerSize)...)
	if c.kind == kindEvents {
		j.buf = appendEvents(j.buf, c.events)
	} else {
		j.buf = append(j.buf, c.payload...)
	}
	payload := j.buf[from+headerSize:]
	c.length, c.sum = uint32(len(payload)), checksum(payload)
	putHeader(j.buf[from:], c.header, c.at)
	j.inBuf = append(j.inBuf, c)
}

// flush writes the buffer to the active segment: all of it, or as far as the
// log goes nothing.
func (j *journal) flush() {
	if len(j.inBuf) == 0 {
		return
	}
	err := j.writeBuffer()
	for _, c := range j.inBuf {
		c.err = err
		if err == nil && c.span != nil && !c.span.in(j.active.number) {
			j.shelf.stretch(c.span, j.active.number)
		}
	}
	clear(j.inBuf)
	j.buf, j.inBuf = j.buf[:0], j.inBuf[:0]
}

func (j *journal) writeBuffer() error {
	if err := j.cutTorn(); err != nil {
		return err
	}
	_, err := j.active.file.WriteAt(j.buf, j.end)
	if err == nil && j.sync {
		err = j.active.file.Sync()
	}
	if err != nil {
		// What a failed write left must not come back as a record.
		j.torn = true
		return storeError("write", err)
	}
	j.end += int64(len(j.buf))
	j.shelf.grew(j.active, j.end)
	return nil
}

// cutTorn removes what a failed write left behind.
func (j *journal) cutTorn() error {
	if !j.torn {
		return nil
	}
	if err := j.active.file.Truncate(j.end); err != nil {
		return storeError("cut a failed write", err)
	}
	j.torn = false
	return nil
}

// rotate begins the next segment, with room for a record of this size.
func (j *journal) rotate(size int64) error {
	if err := j.cutTorn(); err != nil {
		return err
	}
	need := segmentHeaderSize + size + j.reserve()
	g, room, err := j.shelf.begin(j.next, max(j.segmentSize, need), max(need, 4*j.reserve()))
	if err != nil {
		return storeError("begin a segment", err)
	}
	j.next++ // a name is never used twice
	if j.sync {
		if err := syncDir(j.shelf.dir); err != nil {
			j.shelf.letGo(g)
			return storeError("begin a segment", err)
		}
	}
	j.finish()
	j.active, j.room, j.end = g, room, segmentHeaderSize
	return nil
}

// resume goes on with a segment that is there, or leaves it for the next one.
func (j *journal) resume(g *segmentFile) error {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.next = g.number + 1
	if g.size < segmentHeaderSize {
		// The crash came before its first record.
		if _, err := g.file.WriteAt(segmentHeader(g.number), 0); err != nil {
			return storeError("begin a segment", err)
		}
		j.shelf.grew(g, segmentHeaderSize)
	}
	// On a full disk it still has the room that was set aside for ends.
	room, err := allocateUpTo(g.file, g.size, j.segmentSize, g.size+1)
	if err != nil || room <= g.size {
		return nil
	}
	j.shelf.hold(g)
	j.active, j.room, j.end = g, room, g.size
	return nil
}

// finish lets go of the active segment. The caller has the turn.
func (j *journal) finish() {
	if j.active == nil {
		return
	}
	// The room it did not use goes back to the disk; it is no harm if not.
	_ = j.active.file.Truncate(j.end)
	j.shelf.letGo(j.active)
	j.active = nil
}

// close syncs what was written, and refuses what comes from now on.
func (j *journal) close() error {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.closed = true
	if j.active == nil {
		return nil
	}
	err := j.active.file.Sync()
	j.finish()
	return err
}

// storeError is err as the callers of a store know it.
func storeError(doing string, err error) error {
	if diskFull(err) {
		return fmt.Errorf("segment: %s: %w: %w", doing, stream.ErrFull, err)
	}
	return fmt.Errorf("segment: %s: %w: %w", doing, stream.ErrUnavailable, err)
}
