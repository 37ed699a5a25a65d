package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/gofiber/fiber/v2"
	"github.com/tidwall/gjson"

	"weir/internal/stream"
)

// listModels is GET /v1/models.
func (s *Server) listModels(c *fiber.Ctx) error {
	if _, err := s.gate.owner(c); err != nil {
		return err
	}
	return c.JSON(listBody[json.RawMessage]{Object: "list", Data: s.models()})
}

// showModel is GET /v1/models/{id}; ids have slashes.
func (s *Server) showModel(c *fiber.Ctx) error {
	if _, err := s.gate.owner(c); err != nil {
		return err
	}
	id, err := url.PathUnescape(c.Params("*"))
	if err != nil {
		return badRequest("model", "The model's name in the path is not well-formed.")
	}
	for _, model := range s.models() {
		if gjson.GetBytes(model, "id").Str == id {
			return c.JSON(model)
		}
	}
	return &problem{status: http.StatusNotFound, code: "model_not_found", param: "model",
		message: "No provider lists the model \"" + printableName(id) + "\". GET /v1/models lists what there is."}
}

// models lists every provider's models, the default model first. A provider
// that can't list its own does not hide the others'.
func (s *Server) models() []json.RawMessage {
	ctx, cancel := context.WithTimeout(context.Background(), modelsTimeout)
	defer cancel()
	all := []json.RawMessage{}
	for _, name := range s.Registry.Names() {
		provider, _ := s.Registry.Provider(name)
		models, err := provider.Models(ctx)
		if err != nil {
			e := stream.AsError(err)
			s.Logger.Warn("a provider can't list its models", "provider", name, "code", e.Code, "upstream_status", e.UpstreamStatus)
			continue
		}
		all = append(all, models...)
	}
	first, err := s.defaultModel()
	if err != nil {
		return all
	}
	for i, model := range all {
		if gjson.GetBytes(model, "id").Str == first {
			copy(all[1:i+1], all[:i])
			all[0] = model
			break
		}
	}
	return all
}
