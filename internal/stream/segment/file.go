package segment

import (
	"io"
	"os"
)

// file is a segment's file, as far as it is used: the tests put a failing one
// in its place.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync returns when the disk has what was written.
	Sync() error
	// Allocate sets room for so many bytes aside, without growing the file, so
	// that writes into it need no more. A file system that can't says nothing.
	Allocate(size int64) error
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Allocate(size int64) error { return allocate(f.File, size) }

// createFile makes a new file, for this user alone.
func createFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}
