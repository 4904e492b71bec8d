{{- define "processhub.name" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "processhub.selector" -}}
app.kubernetes.io/name: processhub-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "processhub.labels" -}}
{{ include "processhub.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
