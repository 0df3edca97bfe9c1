"""Chat templates that concatenate strings, in the shapes that published language models use."""

from __future__ import annotations

CHATML_DEFAULT_SYSTEM = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
"""As Qwen2's and SmolLM2's."""

SYSTEM_IN_FIRST_USER_TURN = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}\
{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
"""As Llama 2's."""

ROLES_AS_WORDS = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system_message = messages[0]['content'] + ' ' -%}{%- set rest = messages[1:] -%}
{%- else -%}
{%- set system_message = 'A chat between a curious user and an assistant. ' -%}{%- set rest = messages -%}
{%- endif -%}
{{ system_message }}
{%- for message in rest -%}
{%- if message.role == 'user' -%}{{ 'USER: ' + message.content + ' ' }}
{%- else -%}{{ 'ASSISTANT: ' + message.content + eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"""
"""As Vicuna's."""

HEADERS_AND_TRIM = """\
{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim \
+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
"""As Llama 3's."""

NO_SYSTEM_TURN = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""
"""As Gemma 2's."""

TOOLS_AND_NAMESPACE = """\
{%- macro call(tool_call) -%}
{{- '<tool_call>' + (tool_call.function.name | tojson) + '</tool_call>' -}}
{%- endmacro -%}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- if tools %}{{- '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role }}
    {%- if loop.index0 == ns.last %}{{- ' (last)' }}{% endif %}
    {{- '\\n' }}
    {%- if message.role == 'tool' %}{{- '<tool_response>' + message.content + '</tool_response>' }}
    {%- elif message.content %}{{- message.content }}{% endif %}
    {%- for tool_call in message.tool_calls or [] %}{{- call(tool_call) }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
"""As Qwen2.5's."""

GENERATION_BLOCKS = """\

  {% for message in messages %}
{%- if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}
{%- else %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""
"""As SmolLM3's and TRL's, with white space at its beginning."""

CONCATENATING = {
    "qwen2": CHATML_DEFAULT_SYSTEM,
    "llama2": SYSTEM_IN_FIRST_USER_TURN,
    "vicuna": ROLES_AS_WORDS,
    "llama3": HEADERS_AND_TRIM,
    "gemma2": NO_SYSTEM_TURN,
    "qwen25": TOOLS_AND_NAMESPACE,
    "generation": GENERATION_BLOCKS,
}
"""By the model whose template has the shape."""

LISTS_ONLY = """\
{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}\
{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
"""As the LLaVA 1.5 that transformers hosts: takes nothing but lists."""

OTHER_IMAGES = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
"""As Qwen2-VL's: lists, with an image token of its own."""
